"""The socket that paho reads and writes through, with a side door for the bulk.

paho reads a message byte by byte and sends each acknowledgement alone, which costs more than all that we do with the
message. This stands between paho and the real socket: PUBLISH packets are cut out of large reads and go straight to
us; everything else (CONNACK, SUBACK, PINGRESP) goes on to paho, which keeps the session, TLS, keep-alive and
reconnects. Acknowledgements of a whole batch leave in one write.

A message that is too large is cut, and what was cut off is dropped as it comes: ending the connection would not help,
because the broker sends an unacknowledged message again on the next one, for ever. A payload that was cut is still
larger than the contract allows, so it goes to quarantine like any other that is too large.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import structlog

READ_BYTES: Final = 262_144
MAX_PACKET_BYTES: Final = 1_048_576
"""Kept of one packet, and so in memory while it comes. MQTT allows 256 MB; our largest message is about 128 KiB."""

WRITE_PATIENCE_S: Final = 5.0
"""A broker that reads nothing for so long has lost us: acknowledgements are dropped, and it will deliver again."""

_PUBLISH: Final = 0x30
_PUBACK: Final = struct.Struct(">BBH")
_log = structlog.get_logger()


class Publish(NamedTuple):
    """A PUBLISH packet. `mid` is 0 for QoS 0."""

    topic: bytes
    payload: bytes
    retained: bool
    repeated: bool
    mid: int
    qos: int
    cut: int = 0
    """Bytes that the payload lacks at its end, because the packet was too large."""


class BrokenStream(OSError):
    """Bytes that no broker sends: the connection is of no more use."""


class Splitter:
    """Cuts a stream of bytes, in whatever pieces it comes, into PUBLISH packets and the rest. Pure."""

    def __init__(self, max_packet_bytes: int = MAX_PACKET_BYTES) -> None:
        """`max_packet_bytes`: more than that is not kept of any packet. A head and a topic must fit (65 546)."""
        self._limit = max_packet_bytes
        self._tail = bytearray()
        """The beginning of a packet whose end has not come yet."""
        self._wanted = 0
        """Bytes that the tail must have before it is worth looking at: so each byte is copied a few times only."""
        self._to_drop = 0
        """Bytes still to come of a packet that was too large."""

    def feed(self, data: bytes) -> tuple[list[Publish], bytes]:
        """The publishes that are complete now, and the bytes of all other complete packets. Raises BrokenStream."""
        if self._to_drop:
            dropped = min(self._to_drop, len(data))
            self._to_drop -= dropped
            data = data[dropped:]
        if self._tail:
            self._tail += data
            if len(self._tail) < self._wanted:
                return [], b""
            data = bytes(self._tail)
            self._tail.clear()
        published: list[Publish] = []
        others = b""
        at, end = 0, len(data)
        self._wanted = 0
        while end - at >= 2:
            length, body = data[at + 1], at + 2
            if length & 0x80:
                found = _long_length(data, at + 1)
                if found is None:
                    break
                length, body = found
            after = body + length
            head = data[at]
            if after - at > self._limit:
                if head & 0xF0 != _PUBLISH:
                    raise BrokenStream(f"a packet of {after - at} bytes that is no message")
                kept_until = at + self._limit
                if kept_until > end:
                    self._wanted = self._limit
                    break
                published.append(_publish(head, data, body, kept_until)._replace(cut=after - kept_until))
                self._to_drop = max(0, after - end)
                at = min(after, end)
                continue
            if after > end:
                self._wanted = after - at
                break
            if head & 0xF0 == _PUBLISH:
                published.append(_publish(head, data, body, after))
            else:
                others += data[at:after]
            at = after
        self._tail += data[at:]
        return published, others


def _publish(head: int, data: bytes, at: int, after: int) -> Publish:
    qos = head >> 1 & 3
    topic_at = at + 2
    if topic_at > after:
        raise BrokenStream("a PUBLISH without a topic")
    topic_end = topic_at + (data[at] << 8 | data[at + 1])
    payload_at = topic_end + 2 if qos else topic_end
    if payload_at > after or qos == 3:
        raise BrokenStream("a PUBLISH that is shorter than it says")
    mid = data[topic_end] << 8 | data[topic_end + 1] if qos else 0
    return Publish(data[topic_at:topic_end], data[payload_at:after], bool(head & 1), bool(head & 8), mid, qos)


def _long_length(data: bytes, at: int) -> tuple[int, int] | None:
    """The remaining length of two to four bytes and where the packet's body begins; None: not all of it is here."""
    value = 0
    for number in range(4):
        if at + number >= len(data):
            return None
        byte = data[at + number]
        value |= (byte & 0x7F) << 7 * number
        if not byte & 0x80:
            return value, at + number + 1
    raise BrokenStream("a packet length of more than four bytes")


class Stream:
    """Looks like a socket to paho. One thread reads; paho and the worker write."""

    def __init__(self, sock: Any, deliver: Callable[[list[Publish]], None]) -> None:
        """`sock`: a socket, TLS or not. `deliver` may wait: nothing is read meanwhile, and the broker holds back."""
        self._sock = sock
        self._deliver = deliver
        self._splitter = Splitter()
        self._for_paho = b""
        self._out = bytearray()
        self._lock = threading.Lock()
        """TLS must not be read and written at once; packets of two writers must not mix."""

    # what paho calls

    def recv(self, size: int) -> bytes:
        """Raises BlockingIOError when there is nothing for paho: what came was for us."""
        if not self._for_paho:
            with self._lock:
                data = self._sock.recv(READ_BYTES)
            if not data:
                return b""
            try:
                published, self._for_paho = self._splitter.feed(data)
            except BrokenStream as error:
                _log.error("what the broker sends is not MQTT; ending the connection", error=str(error))
                raise
            if published:
                self._deliver(published)
            if not self._for_paho:
                raise BlockingIOError
        taken, self._for_paho = self._for_paho[:size], self._for_paho[size:]
        return taken

    def pending(self) -> int:
        """Bytes that a select on the file descriptor does not know of."""
        hidden = self._sock.pending() if hasattr(self._sock, "pending") else 0
        return len(self._for_paho) + int(hidden)

    def send(self, data: bytes | bytearray) -> int:
        """Takes all of it: packets of paho and of ours must not mix."""
        with self._lock:
            self._out += data
            self._flush()
        return len(data)

    def setblocking(self, flag: bool) -> None:
        self._sock.setblocking(flag)

    def fileno(self) -> int:
        return int(self._sock.fileno())

    def close(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    # what we call

    def acknowledge(self, mids: Sequence[int]) -> None:
        """PUBACKs in one write. Raises OSError when the connection is gone."""
        packed = b"".join([_PUBACK.pack(0x40, 2, mid) for mid in mids])
        deadline = time.monotonic() + WRITE_PATIENCE_S
        self.send(packed)
        while self._out:
            if time.monotonic() > deadline or self.fileno() < 0:
                raise TimeoutError("the broker reads nothing")
            select.select([], [self._sock], [], 0.1)
            self.send(b"")

    def _flush(self) -> None:
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while self._out:
                del self._out[: self._sock.send(self._out)]
