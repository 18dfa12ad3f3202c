"""The life of one virtual device as its messages, with everything that real sensors and networks do to them.

Pure: the simulators' fleet of one device is ticked where something can happen (a phase ends, a report or a fault is
due, a sensor begins or ends to lie), so a day costs thousands of steps and not a million.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from core.topics import Address
from simulators import presets
from simulators.daytime import Pace
from simulators.device import Device
from simulators.fleet import Fleet, Outgoing
from simulators.plan import FaultRequest, Planned

START_MS: Final = 1_766_275_200_000
"""Sunday, 2025-12-21, 08:00 in Shanghai."""

TREND_S: Final = 20_000.0
"""Faults that are told later than this are trends."""

MOVING_MS, FAULTY_MS, REST_MS, CHARGING_MS = 1_000, 5_000, 30_000, 60_000

NOISE: Final = {
    **dict.fromkeys(("vibration_x_mg", "vibration_y_mg", "vibration_z_mg", "leakage_ma"), 0.1),
    **dict.fromkeys(("speed_mps", "power_w", "current_a", "load_kg"), 0.02),
    **dict.fromkeys(("motor_temp_c", "shaft_temp_c", "temp_c", "ambient_c", "noise_db"), 0.01),
    **dict.fromkeys(("voltage_v", "signal_pct"), 0.005),
}
"""Standard deviation of a measurement, as a share of it."""


class Sensors(NamedTuple):
    """How badly a device knows and tells its own state."""

    presence_wrong: float = 0.02
    """Share of the time in which the presence sensor says the opposite."""
    lie_s: float = 20.0
    """How long it does so at a time, on average (exponential)."""
    noise: bool = True
    lost: float = 0.01
    """Share of telemetry that never reaches us. Events are sent until they are acknowledged."""
    load_cell: bool = True


class Said(NamedTuple):
    """One message and when it left; it reaches us at once."""

    now: int
    topic: str
    payload: bytes


class Life:
    """One device from START_MS on. `plan` is the truth about its faults, ms from START_MS."""

    def __init__(self, device: Device, seed: int, sensors: Sensors, faults: Sequence[FaultRequest] = ()) -> None:
        pace = Pace(port_report_s=CHARGING_MS / 1_000)
        preset = presets.get("shenhui")._replace(devices=(device,), pace=pace)
        self.device = device
        self._fleet = Fleet(preset, seed=seed, faults=faults)
        self._sensors = sensors
        self._rng = random.Random(f"{seed}/{device.device_id}/sensors")

    @property
    def plan(self) -> tuple[Planned, ...]:
        """What really befalls the device."""
        return self._fleet.plan

    def messages(self, length_ms: int) -> Iterator[Said]:
        """What it says in order of time; at every instant at which it says nothing, a message without payload."""
        now, end = START_MS, START_MS + length_ms
        lies = self._lies(end) if self.device.kind == "elevator" else iter(())
        lying, turn = False, next(lies, end)
        occupied: bool | None = None
        """What the sensor would say if it did not lie."""
        last_ms = now
        while now < end:
            said = self._fleet.tick(now)
            for out in said:
                payload = json.loads(out.payload)
                if out.topic.endswith("/telemetry"):
                    last_ms, occupied = now, payload.get("occupied")
                    self._spoil(payload, lying=lying)
                    if self._rng.random() < self._sensors.lost:
                        continue
                yield _said(now, out, payload)
            if now == turn:
                lying, turn = not lying, next(lies, end)
                if occupied is not None and not _Member(self._fleet).silent:
                    yield Said(now, self._topic, _bytes({"ts": now, "occupied": occupied != lying}))
            if not said:
                yield Said(now, "", b"")
            now = min(self._next(now, last_ms), turn if turn > now else end, end)

    # --- when to look ------------------------------------------------------------------------------------------

    def _next(self, now: int, last_ms: int) -> int:
        """The next instant at which something can happen."""
        member = _Member(self._fleet)
        at_ease_ms = MOVING_MS if member.moving else max(1_000, REST_MS - (now - last_ms))
        every_ms = FAULTY_MS if member.faulty else at_ease_ms
        instants = [now + every_ms, now + max(1, member.left_ms + 1)]
        for planned in self.plan:
            at = START_MS + planned.start_ms
            edges = [at, *(at + round(cue.at_s * 1_000) for cue in planned.fault.cues)]
            edges += [START_MS + planned.end_ms] if planned.end_ms is not None else []
            instants += [edge for edge in edges if edge > now]
        return min(instants)

    # --- what sensors and the network do -----------------------------------------------------------------------

    def _lies(self, end: int) -> Iterator[int]:
        """Instants at which the presence sensor begins and ends to lie, in turn."""
        wrong, lie_s = self._sensors.presence_wrong, self._sensors.lie_s
        at = float(START_MS)
        while wrong > 0:
            for mean_s in (lie_s * (1 - wrong) / wrong, lie_s):
                at += max(1.0, self._rng.expovariate(1 / mean_s) * 1_000)
                if at >= end:
                    return
                yield round(at)

    def _spoil(self, payload: dict[str, Any], *, lying: bool) -> None:
        if lying and "occupied" in payload:
            payload["occupied"] = not payload["occupied"]
        if not self._sensors.load_cell:
            payload.pop("load_kg", None)
        if self._sensors.noise:
            for part in (payload, *payload.get("ports", ())):
                for name in NOISE.keys() & part.keys():
                    part[name] = max(0.0, round(part[name] * (1 + self._rng.gauss(0, NOISE[name])), 3))

    @property
    def _topic(self) -> str:
        return Address(self.device.site, self.device.kind, self.device.id, "telemetry").topic()


class _Member:
    """A look inside the fleet's only device."""

    def __init__(self, fleet: Fleet) -> None:
        (self._of,) = fleet._members
        self._state: Any = self._of._state

    @property
    def silent(self) -> bool:
        return self._of._silent

    @property
    def faulty(self) -> bool:
        """A fault that is looked at closely. One that takes days changes nothing in how often a device reports."""
        return any(lying.here and lying.fault.told_s < TREND_S for lying in self._of._faults)

    @property
    def moving(self) -> bool:
        return getattr(self._state, "moving", False)

    @property
    def left_ms(self) -> int:
        """Until a phase ends."""
        parts = getattr(self._state, "ports", (self._state,))
        left_s: float = min(*(part.length_s - part.elapsed_s for part in parts), REST_MS / 1_000)
        return round(left_s * 1_000)


def _said(now: int, out: Outgoing, payload: dict[str, Any]) -> Said:
    return Said(now, out.topic, _bytes(payload))


def _bytes(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload).encode()
