"""A fleet on the wire: the only file of the simulators that opens a connection, reads a clock or waits.

It runs as a child process beside the service, so it imports little. One connection speaks for the whole fleet; its
messages leave in order. (A connection, client id and last will per device will stand beside `_Wire`.)
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple

import paho.mqtt.client as paho

from core.mqtt import broker, client
from core.settings import Mqtt
from simulators import presets
from simulators.fleet import DRIVERS, Fleet, Outgoing, kinds_text
from simulators.plan import parse

TICK_S: Final = 0.1
IN_FLIGHT: Final = 200
"""Messages handed to the client and not yet acknowledged."""
BACKLOG: Final = 5_000
"""Messages kept while the broker is away. When they are full the fleet stands still, and catches up later."""
FAREWELL_S, CLOSE_S = 1.5, 0.5
"""For the last messages, and for hanging up: a broker that does not answer cannot keep us from stopping."""

Notice = Callable[[str], None]


class Tally(NamedTuple):
    """What a run did."""

    published: int
    acknowledged: int


def simulate(
    mqtt: Mqtt,
    preset: str,
    *,
    seed: int,
    speed: float,
    faults: Sequence[str],
    for_s: float | None,
    stop: threading.Event,
    kinds: Collection[str] = tuple(DRIVERS),
) -> None:
    """Runs a preset against `mqtt.url` until `stop` is set or `for_s` seconds have passed.

    `faults` are texts like `entrapment@2m:lift-03`. Says on stderr what it is about to do, and when the broker is
    away. Raises SettingsError, before connecting, for whatever cannot be understood.
    """
    fleet = Fleet(presets.get(preset), seed=seed, speed=speed, faults=[parse(text) for text in faults], kinds=kinds)
    host, port = broker(mqtt)
    _to_stderr(f"simulating {preset}: {kinds_text(fleet.devices)} -> {host}:{port}{_planned(fleet)}")
    run(mqtt, fleet, stop, for_s)


def run(
    mqtt: Mqtt, fleet: Fleet, stop: threading.Event, for_s: float | None = None, *, notice: Notice | None = None
) -> Tally:
    """Ticks a fleet and publishes what it says, QoS 1, until `stop` or for `for_s` seconds.

    Reconnects with back-off; what was not acknowledged is sent again. At the end every device says that it is offline.
    """
    wire = _Wire(mqtt, notice or _to_stderr)
    until_s = None if for_s is None else time.monotonic() + for_s
    try:
        while not stop.is_set() and (until_s is None or time.monotonic() < until_s):
            if wire.waiting < BACKLOG:
                wire.add(fleet.tick(_now_ms()))
            wire.send()
            stop.wait(TICK_S)
        wire.add(fleet.farewell(_now_ms()))
        wire.drain(FAREWELL_S)
    finally:
        wire.close()
    return Tally(wire.published, wire.acknowledged)


class _Wire:
    """One connection with bounded memory. paho's own thread sends; this thread only decides what may be in flight."""

    def __init__(self, mqtt: Mqtt, notice: Notice) -> None:
        self._prefix = mqtt.prefix
        self._broker = broker(mqtt)
        self._notice = notice
        self._told = False
        self._queue: deque[Outgoing] = deque()
        self.published = 0
        """Written by the caller's thread only; `acknowledged` by paho's only. So neither needs a lock."""
        self.acknowledged = 0
        self._moved = threading.Event()
        self._client = client(mqtt, f"tizhuang-sim-{secrets.token_hex(4)}")
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.connect_async(self._broker.host, self._broker.port)
        self._client.loop_start()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def add(self, messages: Sequence[Outgoing]) -> None:
        self._queue.extend(messages)

    def send(self) -> None:
        """Hands over what may be in flight; the rest waits for its turn."""
        while self._queue and self._client.is_connected() and self.published - self.acknowledged < IN_FLIGHT:
            topic, payload, retain = self._queue.popleft()
            self._client.publish(self._prefix + topic, payload, qos=1, retain=retain)
            self.published += 1

    def drain(self, limit_s: float) -> None:
        """Waits until everything is acknowledged, at most `limit_s`; not at all while the broker is away."""
        until_s = time.monotonic() + limit_s
        while self._client.is_connected() and (left_s := until_s - time.monotonic()) > 0:
            self._moved.clear()
            self.send()
            if not self._queue and self.published == self.acknowledged:
                return
            self._moved.wait(min(left_s, TICK_S))

    def close(self) -> None:
        self._client.disconnect()
        # loop_stop waits for paho's thread, which may itself wait seconds for a connection.
        hang_up = threading.Thread(target=self._client.loop_stop, daemon=True)
        hang_up.start()
        hang_up.join(CLOSE_S)

    def _on_connect(self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._tell_away(str(reason))
        elif self._told:
            self._told = False
            self._notice(f"simulators: connected to {self._broker.host}:{self._broker.port} again")

    def _on_connect_fail(self, client: paho.Client, data: Any) -> None:
        self._tell_away("cannot connect")

    def _on_disconnect(self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._tell_away(str(reason))

    def _on_publish(self, client: paho.Client, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self.acknowledged += 1
        self._moved.set()

    def _tell_away(self, reason: str) -> None:
        """Once per outage."""
        if not self._told:
            self._told = True
            self._notice(f"simulators: {self._broker.host}:{self._broker.port}: {reason}; trying again")


def _planned(fleet: Fleet) -> str:
    """`; faults: entrapment on fenghe.lift-03 at 120 s`."""
    told = [
        f"{p.fault.name} on {p.device.device_id}{f'/{p.port}' if p.port else ''} at {p.start_ms / 1_000:g} s"
        for p in fleet.plan
    ]
    return f"; faults: {', '.join(told)}" if told else ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
