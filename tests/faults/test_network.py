"""Bad lines to the broker and to InfluxDB: slow, torn, cut, and closed for one end only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from tests import servers
from tests.faults.balance import close_the_balance
from tests.faults.conftest import LONG
from tests.faults.scene import Pausable, Scene, Service
from tests.proxy import Proxy, proxy

ROUNDS = 5 if LONG else 1
DELAY_S = 0.3
TRICKLE = 1_500
"""Bytes per 10 ms and direction: less than the load needs."""


def slow(cable: Proxy, more: Callable[[int], None]) -> None:
    cable.delay_s = DELAY_S
    more(200)
    cable.delay_s = 0.0


def torn(cable: Proxy, more: Callable[[int], None]) -> None:
    """So narrow that the cut goes through the middle of something."""
    cable.trickle = TRICKLE
    more(100)
    cable.cut()
    cable.trickle = None


def cut(cable: Proxy, more: Callable[[int], None]) -> None:
    for _ in range(3):
        cable.cut()
        more(50)


def closed_for_us(cable: Proxy, more: Callable[[int], None]) -> None:
    """We are told that it is over; the other side is not, and has an old connection beside the new one."""
    cable.half_close("client")
    more(200)


def closed_for_them(cable: Proxy, more: Callable[[int], None]) -> None:
    """They are told; we speak into the void until somebody notices, or until the line is really cut."""
    cable.half_close("server")
    time.sleep(2)  # how long nobody noticed
    if not LONG:
        cable.cut()
    more(200)


TROUBLES = (slow, torn, cut, closed_for_us, closed_for_them)


def _suffer(cable: Proxy, service: Service) -> None:
    """All troubles, one after the other; between them messages must come."""
    for _ in range(ROUNDS):
        for trouble in TROUBLES:
            _received(service, 100)
            trouble(cable, lambda least: _received(service, least))


def test_a_bad_line_to_the_broker(scene: Scene, broker: Pausable) -> None:
    with proxy(broker.server.port) as cable:
        direct, scene = scene.broker_url, replace(scene, broker_url=cable.url)
        with scene.serving() as service, scene.load(direct) as load:
            _suffer(cable, service)
            load.finish()
            close_the_balance(scene, service, broker.server, load)
    assert cable.accepted > 5 * ROUNDS


def test_a_bad_line_to_influxdb(scene: Scene, broker: Pausable, influxd: Pausable) -> None:
    with proxy(influxd.server.port) as cable:
        scene = replace(scene, influx_url=f"http://127.0.0.1:{cable.port}", store_url=influxd.server.url)
        with scene.serving() as service, scene.load() as load:
            _suffer(cable, service)
            load.finish()
            close_the_balance(scene, service, broker.server, load)
    assert cable.accepted > 5 * ROUNDS


def test_influxdb_does_not_answer(scene: Scene, broker: Pausable, influxd: Pausable) -> None:
    """The connection stands and nothing comes back: messages must not wait for the end of our patience."""
    with proxy(influxd.server.port) as cable:
        scene = replace(scene, influx_url=f"http://127.0.0.1:{cable.port}", store_url=influxd.server.url)
        with scene.serving() as service, scene.load() as load:
            service.wait("some are stored", "stored", 200)
            cable.stalled.set()
            service.wait("messages in the spool", "spooled", 10_000 if LONG else 500)
            cable.stalled.clear()
            servers.wait_until("the spool is empty", lambda: not service.stat("spooled"), timeout_s=60)
            load.finish()
            close_the_balance(scene, service, broker.server, load)


def _received(service: Service, least: int) -> None:
    service.wait("more messages come", "received", service.stat("received") + least, timeout_s=200)
