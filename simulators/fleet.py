"""A fleet of virtual devices under one clock. Pure: the same seed, faults and tick times give the same bytes.

`tick(now_ms)` is all there is: it moves every device to that instant and returns what they would publish. Each device
draws from its own random numbers, derived from the seed and its name, so devices never influence one another.

Two clocks: simulated time runs `speed` times faster than the caller's and moves cars and charges bikes. Stamps, and
the times of faults, stay on the caller's clock, because rules wait on stamps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple

from core.errors import SettingsError
from core.fields import Wire
from core.kinds import KINDS
from core.kinds.status import EventPayload, Status
from core.payload import encode
from core.topics import Address
from simulators import lift, pile
from simulators.daytime import Pace
from simulators.device import WHOLE, Device, Driver, Watch
from simulators.plan import FaultRequest, Planned, assign
from simulators.presets import Preset

DRIVERS: Final[dict[str, Driver[Any]]] = {"elevator": lift.DRIVER, "charger": pile.DRIVER}

LEAST_GAP_MS: Final = 500
"""At most two telemetry messages per second and device, however fast time runs."""
FAULTY_REPORT_MS: Final = 5_000
"""A device with a fault reports more often than one at rest (our own default)."""


class Outgoing(NamedTuple):
    """One message, QoS 1. The topic has no broker's prefix."""

    topic: str
    payload: bytes
    retain: bool


class Fleet:
    """All devices of a preset, or those of some kinds."""

    def __init__(
        self,
        preset: Preset,
        *,
        seed: int,
        speed: float = 1.0,
        faults: Sequence[FaultRequest] = (),
        kinds: Collection[str] = tuple(DRIVERS),
    ) -> None:
        """Raises SettingsError for a kind, speed or fault that cannot be."""
        if unknown := [kind for kind in kinds if kind not in DRIVERS]:
            raise SettingsError(f"unknown kind '{unknown[0]}'; known: {', '.join(DRIVERS)}")
        if not 0 < speed < math.inf:
            raise SettingsError(f"speed {speed:g}: must be a number above 0")
        self.devices = tuple(device for device in preset.devices if device.kind in kinds)
        if not self.devices:
            raise SettingsError(f"{preset.name} has no {' or '.join(KINDS[kind].en for kind in kinds)}")
        self.plan = assign(faults, self.devices, seed)
        self._pace = preset.pace
        self._speed = speed
        self._seed = seed
        self._now_ms = 0
        self._members: tuple[_Member, ...] = ()

    def tick(self, now_ms: int) -> list[Outgoing]:
        """What all devices publish at `now_ms`, Unix ms. The first tick starts them and the clock of the faults.

        Ticks may be any time apart. A clock that steps back stops the devices for one tick, no more.
        """
        out: list[Outgoing] = []
        if not self._members:
            self._now_ms = now_ms
            self._members = tuple(self._start(device, now_ms) for device in self.devices)
            out += [member.status(now_ms, online=True) for member in self._members]
        dt_s = max(0, now_ms - self._now_ms) / 1_000 * self._speed
        self._now_ms = now_ms
        for member in self._members:
            out += member.tick(now_ms, dt_s)
        return out

    def farewell(self, now_ms: int) -> list[Outgoing]:
        """The retained `online: false` of every device that was started."""
        return [member.status(now_ms, online=False) for member in self._members]

    def _start(self, device: Device, now_ms: int) -> _Member:
        rng = random.Random(f"{self._seed}/{device.device_id}")
        plan = [_Lying(planned, now_ms) for planned in self.plan if planned.device.device_id == device.device_id]
        return _Member(device, self._pace, self._speed, now_ms, rng, plan)


class _Lying:
    """A planned fault on the caller's clock, and how far it has got."""

    __slots__ = ("begun", "cues_sent", "end_ms", "ended", "fault", "name", "port", "start_ms")

    def __init__(self, planned: Planned, zero_ms: int) -> None:
        self.fault = planned.fault
        self.name = planned.fault.name.replace(":", "-")
        self.port = planned.port
        self.start_ms = zero_ms + planned.start_ms
        self.end_ms = None if planned.end_ms is None else zero_ms + planned.end_ms
        self.begun = self.ended = False
        self.cues_sent = 0

    @property
    def here(self) -> bool:
        return self.begun and not self.ended


class _Member:
    """One device: its state, and what it reported last."""

    def __init__(
        self, device: Device, pace: Pace, speed: float, now_ms: int, rng: random.Random, faults: list[_Lying]
    ) -> None:
        self._device = device
        self._driver = DRIVERS[device.kind]
        self._speed = speed
        self._rng = rng
        self._faults = faults
        self._state = self._driver.start(device, pace, now_ms / 1_000, rng)
        self._seq = 0
        self._sent_ms: int | None = None
        self._reported: dict[tuple[int, int], tuple[str, int]] = {}
        """Part and watcher -> key and time of the last report."""

    def tick(self, now_ms: int, dt_s: float) -> list[Outgoing]:
        self._state = self._driver.step(self._state, dt_s, self._rng)
        out: list[Outgoing] = []
        for lying in self._faults:
            out += self._advance(lying, now_ms)
        if not self._silent:
            out += self._telemetry(now_ms)
        return out

    def status(self, now_ms: int, *, online: bool) -> Outgoing:
        firmware = self._driver.firmware if online else None
        return self._publish("status", Status(ts=now_ms, seq=self._next_seq(), online=online, firmware=firmware))

    @property
    def _silent(self) -> bool:
        return any(lying.here and lying.fault.silent for lying in self._faults)

    def _advance(self, lying: _Lying, now_ms: int) -> list[Outgoing]:
        """Begins and ends a fault when its time has come; its events, each once, stamped with their own time."""
        out: list[Outgoing] = []
        fault = lying.fault
        if lying.ended or now_ms < lying.start_ms:
            return out
        if not lying.begun:
            lying.begun = True
            self._state = fault.begin(self._state, lying.port, self._rng)
            if fault.offline:
                out.append(self.status(lying.start_ms, online=False))
        while lying.cues_sent < len(fault.cues):
            at_ms = lying.start_ms + round(fault.cues[lying.cues_sent].at_s * 1_000)
            if at_ms > now_ms or (lying.end_ms is not None and at_ms >= lying.end_ms):
                break
            out += self._event(lying, lying.cues_sent, at_ms, raised=True)
            lying.cues_sent += 1
        if lying.end_ms is not None and now_ms >= lying.end_ms:
            for cue in range(lying.cues_sent):
                out += self._event(lying, cue, lying.end_ms, raised=False)
            lying.ended = True
            self._state = fault.end(self._state, lying.port, self._rng)
            if fault.offline:
                out.append(self.status(lying.end_ms, online=True))
        return out

    def _event(self, lying: _Lying, cue: int, ts_ms: int, *, raised: bool) -> list[Outgoing]:
        if self._silent:
            return []
        state: Literal["raised", "cleared"] = "raised" if raised else "cleared"
        _, table, code = lying.fault.cues[cue]
        # Unlike the seed, the start time differs between runs: a second run's alarm is a new event.
        event = EventPayload(
            id=f"{lying.name}-{lying.start_ms}-{code}-{state}",
            ts=ts_ms,
            seq=self._next_seq(),
            code=code,
            table=table,
            state=state,
            port=None if lying.port == WHOLE else lying.port,
        )
        return [self._publish("event", event)]

    def _telemetry(self, now_ms: int) -> list[Outgoing]:
        if self._sent_ms is not None and 0 <= now_ms - self._sent_ms < LEAST_GAP_MS:
            return []
        watches = (*self._driver.watches(self._state), *self._fault_watches())
        due = {watch.part for watch in watches if self._is_due(watch, now_ms)}
        if not due:
            return []
        snapshot: Wire = self._driver.snapshot(self._state, now_ms, self._next_seq(), due)
        for lying in self._faults:
            if lying.here:
                snapshot = lying.fault.overlay(snapshot, (now_ms - lying.start_ms) / 1_000, lying.port)
        self._remember(watches, due, now_ms)
        return [self._publish("telemetry", snapshot)]

    def _fault_watches(self) -> Iterable[Watch]:
        """A faulty part reports at once when the fault comes or goes, and often in between."""
        every_s = FAULTY_REPORT_MS / 1_000 * self._speed
        for number, lying in enumerate(self._faults, 1):
            if lying.begun:
                key, every = ("here", every_s) if lying.here else ("gone", math.inf)
                yield Watch(lying.port, key, every, number)

    def _is_due(self, watch: Watch, now_ms: int) -> bool:
        last = self._reported.get((watch.part, watch.watcher))
        if last is None or last[0] != watch.key:
            return True
        return not 0 <= now_ms - last[1] < watch.every_s * 1_000 / self._speed

    def _remember(self, watches: Sequence[Watch], due: set[int], now_ms: int) -> None:
        first = self._sent_ms is None
        for watch in watches:
            if WHOLE in due or watch.part in due:
                # Devices that start together should not report together for ever.
                stagger = first and watch.part == WHOLE and math.isfinite(watch.every_s)
                ago_s = self._rng.uniform(0, watch.every_s) / self._speed if stagger else 0.0
                self._reported[watch.part, watch.watcher] = (watch.key, now_ms - round(ago_s * 1_000))
        self._sent_ms = now_ms

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _publish(self, channel: str, payload: Wire) -> Outgoing:
        device = self._device
        topic = Address(device.site, device.kind, device.id, channel).topic()
        return Outgoing(topic, encode(payload), retain=channel == "status")


def kinds_text(devices: Sequence[Device]) -> str:
    """`12 lifts, 4 charging piles`, for a start line."""
    counts = {kind: sum(device.kind == kind for device in devices) for kind in KINDS}
    return ", ".join(f"{n} {KINDS[kind].en}{'s' if n > 1 else ''}" for kind, n in counts.items() if n)
