"""The side door beside paho: every packet arrives once and whole, however the network cuts the bytes."""

from __future__ import annotations

import socket
import struct
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.stream import MAX_PACKET_BYTES, BrokenStream, Publish, Splitter, Stream


def packet(head: int, body: bytes) -> bytes:
    """An MQTT control packet; the length as the standard writes it."""
    length, digits = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        digits += bytes([digit | 0x80 if length else digit])
        if not length:
            return bytes([head]) + digits + body


def encoded(one: Publish) -> bytes:
    head = 0x30 | one.repeated << 3 | one.qos << 1 | one.retained
    mid = struct.pack(">H", one.mid) if one.qos else b""
    return packet(head, struct.pack(">H", len(one.topic)) + one.topic + mid + one.payload)


sizes = st.sampled_from([0, 1, 100, 127, 128, 129, 16_383, 16_384, 70_000])
publishes = st.builds(
    lambda topic, size, retained, repeated, mid, qos: Publish(
        topic, b"\x30" * size, retained, repeated, mid if qos else 0, qos
    ),
    st.binary(max_size=20),
    sizes,
    st.booleans(),
    st.booleans(),
    st.integers(1, 65_535),
    st.sampled_from([0, 1]),
)
controls = st.sampled_from([packet(0x20, b"\x00\x00"), packet(0x90, b"\x00\x01\x01"), packet(0xD0, b"")])
traffic = st.lists(st.one_of(publishes, controls), max_size=8)


@given(traffic, st.data())
def test_any_cut_of_the_stream_gives_the_same_packets(sent: list[Publish | bytes], data: st.DataObject):
    stream = b"".join(encoded(one) if isinstance(one, Publish) else one for one in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    splitter, found, others = Splitter(), [], b""
    for start, end in pairwise([0, *sorted(cuts), len(stream)]):
        published, rest = splitter.feed(stream[start:end])
        found += published
        others += rest
    assert found == [one for one in sent if isinstance(one, Publish)]
    assert others == b"".join(one for one in sent if isinstance(one, bytes))


LIMIT = 70_000


def kept(one: Publish) -> Publish:
    """What is left of a message where a packet may have `LIMIT` bytes."""
    cut = max(0, len(encoded(one)) - LIMIT)
    return one._replace(payload=one.payload[: len(one.payload) - cut], cut=cut)


@given(traffic, st.data())
def test_a_message_that_is_too_large_is_cut_and_what_comes_behind_it_is_whole(
    sent: list[Publish | bytes], data: st.DataObject
):
    """However it comes, no more than one packet of the largest size and one read is held."""
    stream = b"".join(encoded(one) if isinstance(one, Publish) else one for one in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    splitter, found, others = Splitter(LIMIT), [], b""
    for start, end in pairwise([0, *cuts, len(stream)]):
        published, rest = splitter.feed(stream[start:end])
        found += published
        others += rest
        assert len(splitter._tail) < LIMIT
    assert found == [kept(one) for one in sent if isinstance(one, Publish)]
    assert others == b"".join(one for one in sent if isinstance(one, bytes))


def test_a_huge_message_in_many_small_pieces_takes_no_more_memory_than_the_limit():
    huge, after = Publish(b"t", b"\x30" * 20_000_000, False, False, 7, 1), Publish(b"t", b"x", False, False, 8, 1)
    stream, splitter, found, most = encoded(huge) + encoded(after), Splitter(), [], 0
    for start in range(0, len(stream), 1_400):  # what a network carries at once
        found += splitter.feed(stream[start : start + 1_400])[0]
        most = max(most, len(splitter._tail))
    assert [(one.mid, len(one.payload) + one.cut) for one in found] == [(7, 20_000_000), (8, 1)]
    assert len(found[0].payload) < MAX_PACKET_BYTES
    assert most < MAX_PACKET_BYTES


def test_a_packet_is_looked_at_once_when_it_is_whole_and_not_with_every_piece():
    """Else the bytes that are copied grow with the square of its size."""

    class Counting(Splitter):
        looked = 0

        @property
        def _wanted(self) -> int:
            return self.wanted

        @_wanted.setter
        def _wanted(self, wanted: int) -> None:
            self.looked += 1  # set anew with every look at the bytes
            self.wanted = wanted

    one, splitter = Publish(b"t", b"\x30" * 900_000, False, False, 7, 1), Counting()
    stream = encoded(one)
    pieces = [stream[start : start + 100] for start in range(0, len(stream), 100)]
    assert [found for piece in pieces for found in splitter.feed(piece)[0]] == [one]
    assert len(pieces) > 9_000
    assert splitter.looked < 10


@pytest.mark.parametrize(
    "data",
    [
        b"\x20\xff\xff\x7f",  # two megabytes of something that is no message
        b"\x30\x80\x80\x80\x80\x01",  # a length of five bytes
        b"\x30\x01\x00",  # no room for a topic
        b"\x32\x05\x00\x09abc",  # a topic that is longer than the packet
        b"\x32\x03\x00\x01a",  # QoS 1 without a number
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
    ],
)
def test_bytes_that_are_not_mqtt_end_the_connection(data: bytes):
    with pytest.raises(BrokenStream):
        Splitter().feed(data)


def test_what_is_not_for_us_goes_on_to_paho_byte_by_byte():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    got: list[Publish] = []
    stream = Stream(ours, got.extend)
    one = Publish(b"t", b"x", False, False, 7, 1)
    with ours, theirs:
        theirs.sendall(encoded(one) + b"\xd0\x00" + encoded(one))
        assert stream.recv(1) == b"\xd0"
        assert stream.pending() == 1
        assert stream.recv(1) == b"\x00"
        assert got == [one, one]
        with pytest.raises(BlockingIOError):
            stream.recv(1)
        theirs.sendall(encoded(one))
        with pytest.raises(BlockingIOError):
            stream.recv(1)  # a message for us, and nothing for paho
        assert len(got) == 3
        theirs.close()
        assert stream.recv(1) == b"", "the end of the connection is paho's to handle"


def test_acknowledgements_leave_together_and_whole():
    """More than the network takes at once, beside packets of paho's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    theirs.settimeout(5)
    stream = Stream(ours, lambda _: None)
    mids = list(range(1, 60_001))
    with ours, theirs:
        stream.send(b"\xc0\x00")
        received = bytearray()

        def reading() -> None:
            while len(received) < 2 + 4 * len(mids):
                received.extend(theirs.recv(65_536))

        reader = threading.Thread(target=reading)
        reader.start()
        stream.acknowledge(mids)
        reader.join(10)
    assert received == b"\xc0\x00" + b"".join(struct.pack(">BBH", 0x40, 2, mid) for mid in mids)
