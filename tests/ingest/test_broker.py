"""The embedded broker: one clear line when its port is taken, and no child that outlives its parent."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import AddressInUse
from core.settings import Mqtt
from ingest.broker import embedded_broker
from ingest.subscription import Delivery, Subscription
from tests.servers import ROOT, answers, free_port, process, wait_until

PARENT = """
import sys, threading
from ingest.broker import embedded_broker
with embedded_broker(int(sys.argv[1])):
    threading.Event().wait()
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with embedded_broker(0) as port:
        yield port
    assert not answers(port)


def test_it_takes_the_port_it_is_given_and_only_on_loopback(port: int):
    assert answers(port)
    other = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in other:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            assert probe.connect_ex((address, port)) != 0


def test_a_port_in_use_is_told_in_one_line_that_says_what_to_do(port: int):
    with pytest.raises(AddressInUse) as caught, embedded_broker(port):
        pass
    assert str(caught.value) == (
        f"MQTT broker: port {port} on 127.0.0.1 is in use by another program; choose another with --mqtt-port"
    )


def test_it_keeps_what_was_not_acknowledged(port: int):
    """What the ingest worker needs of a broker, from this one too."""
    topic = "tizhuang/v1/here/elevator/lift/telemetry"
    settings = Mqtt(url=f"mqtt://127.0.0.1:{port}", client_id="keeper")

    def life(*publish: bytes, ack: int) -> list[bytes]:
        source = Subscription(settings, now=lambda: 1, on_connection=lambda _: None)
        source.start()
        try:
            wait_until("connected", lambda: source.connected)
            for payload in publish:
                assert source._client.publish(topic, payload, qos=1).rc == 0
            taken: list[Delivery] = []

            def three() -> bool:
                taken.extend(source.take(9, wait_s=0.1, linger_s=0))
                return len(taken) >= 3

            wait_until("three messages", three)
            assert source.ack(taken[:ack]) == ack
            source.take(1, wait_s=0.2, linger_s=0)
            return [one.payload for one in taken]
        finally:
            source.close()

    assert life(b"1", b"2", b"3", ack=2) == [b"1", b"2", b"3"]
    assert life(b"4", b"5", ack=3) == [b"3", b"4", b"5"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_parent(tmp_path: Path, how: signal.Signals):
    port = free_port()
    with process([sys.executable, "-c", PARENT, str(port)], log=tmp_path / "log", cwd=ROOT) as parent:
        wait_until("broker up", lambda: answers(port))
        parent.send_signal(how)
        parent.wait()
        wait_until("broker gone", lambda: not answers(port), timeout_s=3)


def test_leaving_the_block_is_quick_and_frees_the_port():
    with embedded_broker(0) as port:
        before = time.monotonic()
    assert time.monotonic() - before < 2
    with embedded_broker(port) as again:
        assert again == port
