"""What the engine remembers of a device: values, faults, where its rules stand, and how late its clock runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final, NamedTuple

from core.incident import RuleState
from core.kinds import all_fields, part_fields
from core.reading import Reading, Value

LAG_WINDOW_MS: Final = 600_000

STEP_SAMPLES: Final = 3
STEP_PACE_MS: Final = 1_000
STEP_SPAN_MS: Final = 2_000
"""So many samples in a row, behind the watermark, at the pace at which they reach us, over so long: not a backlog,
which comes at once, but a clock that was set back."""


class Fault(NamedTuple):
    """The newest thing a device said about one of its faults."""

    ts: int
    raised: bool
    ids: tuple[str, ...]
    """Events of that instant, so that a repeat of one is not taken for something newer."""


@dataclass(slots=True)
class Part:
    """One part of a device: values and where each of its rules stands."""

    watermark: int = 0
    settled: int = 0
    """Up to here another process has decided and saved; what it was still to store comes again, and changes nothing."""
    offset: int = 0
    """Receive time minus device time of the newest sample, ms: leads from a device's time to the wall clock."""
    values: dict[str, tuple[Value, int]] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    rules: dict[str, RuleState] = field(default_factory=dict)
    behind: list[Reading] = field(default_factory=list)
    """Samples in a row that are older than the watermark, while they could mean that the clock was set back."""

    def clock_was_set_back(self, reading: Reading) -> bool:
        """Whether this sample, behind the watermark, settles that the device's clock was set back."""
        newest_rx = self.watermark + self.offset
        if reading.retained or not reading.clock_ok or reading.rx < newest_rx:
            return False  # a repeat of what came before says nothing about the clock now
        if self.behind:
            first, last = self.behind[0], self.behind[-1]
            steady = abs((reading.rx - first.rx) - (reading.ts - first.ts)) <= STEP_PACE_MS
            if reading.ts <= last.ts or not steady:
                self.behind.clear()
        self.behind.append(reading)
        first = self.behind[0]
        return len(self.behind) >= STEP_SAMPLES and reading.rx - first.rx >= STEP_SPAN_MS

    def move_back(self) -> list[RuleState]:
        """Puts all that is known onto the device's new time line; returns the rule states, moved."""
        step = self.watermark - self.behind[0].ts + 1
        self.watermark -= step
        self.settled = min(self.settled, self.watermark)
        self.values = {name: (value, ts - step) for name, (value, ts) in self.values.items()}
        self.faults = {name: known._replace(ts=known.ts - step) for name, known in self.faults.items()}
        self.rules = {
            rule_id: state._replace(since=state.since - step, changed=state.changed - step)
            for rule_id, state in self.rules.items()
        }
        return list(self.rules.values())

    def active(self, fault: str) -> bool:
        """Raised and not cleared."""
        known = self.faults.get(fault)
        return known is not None and known.raised

    def take(self, values: Mapping[str, Value], ts: int, judged: frozenset[str]) -> set[str]:
        """Every field keeps its newest value by device time, whenever it reached us. Returns the fields with news."""
        news = set()
        for name, value in values.items():
            held = self.values.get(name)
            if name in judged and (held is None or held[1] <= ts) and held != (value, ts):
                self.values[name] = (value, ts)
                news.add(name)
        return news


@dataclass(slots=True)
class Lag:
    """How far a device's clock runs behind ours, ms: the least delay of its recent messages.

    A live device with a slow clock is always equally late; a backlog is much later than what came before it. The
    window moves on by messages, so an outage does not forget how the device's clock stood before it.
    """

    window_start: int = 0
    before: int | None = None
    now: int | None = None

    def take(self, ts: int, rx: int) -> None:
        if self.now is None or rx - self.window_start > LAG_WINDOW_MS:
            self.before, self.now, self.window_start = self.now, rx - ts, rx
        else:
            self.now = min(self.now, rx - ts)

    @property
    def ms(self) -> int:
        known = [lag for lag in (self.before, self.now) if lag is not None]
        return min(known, default=0)


@dataclass(slots=True)
class Device:
    """What all parts of a device share."""

    kind: str
    statics: Mapping[str, Value] = field(default_factory=dict)
    last_rx: int | None = None
    last_ts: int = 0
    lag: Lag = field(default_factory=Lag)
    parts: dict[str, Part] = field(default_factory=dict)


class Scope:
    """A condition's view of one part at one instant: the fields that such a part has, then those of the device."""

    __slots__ = ("_device", "_part", "_stale", "_values", "now")

    def __init__(self, device: Device, part: Part, now: int) -> None:
        self._device = device
        self._part = part
        self._values = part.values
        self._stale = _stale_ms(device.kind)
        self.now = now

    def field(self, name: str) -> Value | None:
        held = self._values.get(name)
        if held is None:
            held = held_value(self._device, self._part, name)
            if held is None:
                return None
        value, ts = held
        return None if self.now - ts > self._stale[name] else value

    def static(self, name: str) -> Value | None:
        return self._device.statics.get(name)

    def active(self, fault: str) -> bool:
        return self._part.active(fault)


@cache
def _stale_ms(kind: str) -> dict[str, int]:
    return {name: spec.stale_ms for name, spec in all_fields(kind).items()}


def held_value(device: Device, part: Part, name: str) -> tuple[Value, int] | None:
    """The newest value of a field and its device time: the part's, or the device's where no part has such a field."""
    held = part.values.get(name)
    return device.parts[""].values.get(name) if held is None and name not in part_fields(device.kind) else held
