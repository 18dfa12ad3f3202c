"""What the engine remembers of a device: values, samples, faults, where its rules stand, how late its clock runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final, NamedTuple

from alerts.buckets import BucketTrack
from alerts.condition import Series
from alerts.pack import MODE, Names, Pack
from alerts.samples import RawTrack
from alerts.windows import Track, make_track
from core.incident import RuleState
from core.reading import Event, Reading, Value

NOTHING, LONG, ALL = range(3)
"""Which windows wait for their samples after a start: none, those of more than ten minutes, all."""

LAG_WINDOW_MS: Final = 600_000

KEPT_EVENT_IDS: Final = 16

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
        elif rx - ts < self.now:
            self.now = rx - ts

    @property
    def ms(self) -> int:
        known = [lag for lag in (self.before, self.now) if lag is not None]
        return min(known, default=0)


@dataclass(slots=True)
class Device:
    """What all parts of a device share."""

    id: str
    kind: str
    pack: Pack
    zone: tzinfo
    statics: Mapping[str, Value] = field(default_factory=dict)
    last_rx: int | None = None
    last_ts: int = 0
    lag: Lag = field(default_factory=Lag)
    seq: int | None = None
    """The highest number of a message so far."""
    seq_ts: int = 0
    """The newest device time of a numbered message."""
    waiting: int = 0
    """Its samples are being read back after a start: windows are unknown. NOTHING, LONG or ALL."""
    gap: Any = None
    """Numbers that are missing (`alerts.late.Gap`)."""
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def site(self) -> str:
        return self.id.partition(".")[0]

    def part(self, name: str) -> Part:
        """The part of this name ("" is the device itself), made when it is new."""
        found = self.parts.get(name)
        if found is None:
            found = self.parts[name] = Part(self, name)
        return found


@dataclass(slots=True)
class Part:
    """One part of a device: values and where each of its rules stands."""

    device: Device
    name: str
    watermark: int = 0
    settled: int = 0
    """Up to here another process has decided and saved; what it was still to store comes again, and changes nothing."""
    offset: int = 0
    """Receive time minus device time of the newest sample, ms: leads from a device's time to the wall clock."""
    unseen: bool = True
    """Nothing was judged yet since this engine began, or since it has these rules."""
    mode_since: int = 0
    """Since when the service mode is what it is, device time."""
    next_due: int | None = None
    """Not later than the earliest of `due`; `engine` finds out when it is there."""
    timer_at: int | None = None
    """Wall time of the earliest timer that is set for this part."""
    late: tuple[str, ...] = ()
    """Rules that fire, and were history when they reached us."""
    values: dict[str, tuple[Value, int]] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    rules: dict[str, RuleState] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    """When, by device time, a rule must be looked at although nothing comes."""
    tracks: dict[str, Track] = field(default_factory=dict)
    counted: dict[str, bool] = field(default_factory=dict)
    """What counted conditions were last, so that only their becoming true counts."""
    behind: list[Reading] = field(default_factory=list)
    """Samples in a row that are older than the watermark, while they could mean that the clock was set back."""

    @property
    def type(self) -> str:
        return "port" if self.name else "device"

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
        """Puts all that is known onto the device's new time line; returns the rule states, moved.

        Samples of windows over ten minutes are dropped: their buckets lie on the old one.
        """
        step = self.watermark - self.behind[0].ts + 1
        self.watermark -= step
        self.settled = min(self.settled, self.watermark)
        self.mode_since -= step
        self.values = {name: (value, ts - step) for name, (value, ts) in self.values.items()}
        self.faults = {name: known._replace(ts=known.ts - step) for name, known in self.faults.items()}
        self.rules = {rule_id: _earlier(state, step) for rule_id, state in self.rules.items()}
        self.due.clear()
        self.next_due = None
        short = {key: track for key, track in self.tracks.items() if isinstance(track, RawTrack)}
        for track in short.values():
            track.shift(step)
        self.tracks = dict(short)
        return list(self.rules.values())

    def active(self, fault: str) -> bool:
        """Raised and not cleared."""
        known = self.faults.get(fault)
        return known is not None and known.raised

    def take(self, values: Mapping[str, Value], ts: int) -> tuple[Names, Names]:
        """Every field keeps its newest value by device time, whenever it reached us.

        Returns the fields whose value is another one than before (or was unknown), and those of which every report
        matters.
        """
        pack = self.device.pack
        stale_ms, timed, mine = pack.stale_ms, pack.timed, self.values
        changed, reported = [], []
        for name, value in values.items():
            stale = stale_ms.get(name)
            if stale is None:
                continue
            held = mine.get(name)
            if held is None:
                changed.append(name)
            else:
                known, when = held
                if known != value:
                    if when > ts:
                        continue
                    changed.append(name)
                elif when >= ts:
                    continue
                elif ts - when > stale:
                    changed.append(name)
            mine[name] = (value, ts)
            if name in timed:
                reported.append(name)
        if MODE in changed:
            self.mode_since = ts
        return tuple(changed), tuple(reported)

    def take_event(self, event: Event) -> bool:
        """Keeps the newest of each fault. False: it is older than what is known, or a repeat."""
        if event.fault is None:
            return False
        known = self.faults.get(event.fault)
        if known is not None and (event.ts < known.ts or (event.ts == known.ts and event.id in known.ids)):
            return False
        ids = (*known.ids, event.id) if known is not None and event.ts == known.ts else (event.id,)
        self.faults[event.fault] = Fault(event.ts, event.raised, ids[-KEPT_EVENT_IDS:])
        return True

    def track(self, series: Series) -> Track:
        """The samples of a series on this part."""
        found = self.tracks.get(series.key)
        if found is None:
            found = self.tracks[series.key] = make_track(series)
        return found

    def keep_samples(self, names: Names, values: Mapping[str, Value], ts: int) -> None:
        """Adds to the samples that windows look at."""
        series = self.device.pack.series
        for name in names:
            for one in series.get(name, ()):
                track = self.track(one)
                track.add(ts, values[name])
                if not one.step_ms and self.device.gap is None:  # else they may be judged again
                    track.forget(ts - one.keep_ms)

    def count(self, names: Collection[str] | None, scope: Scope) -> None:
        """Adds to the counts of conditions that became true: those that look at one of these fields, or all."""
        for one in self.device.pack.series.get(None, ()):
            assert one.counted is not None
            if names is not None and one.counted.fields.isdisjoint(names):
                continue
            track = self.track(one)
            true = one.counted.evaluate(scope)
            if true and not self.counted.get(one.key, False):
                track.add(scope.now, 1)
                if not one.step_ms and self.device.gap is None:
                    track.forget(scope.now - one.keep_ms)
            if true is not None:
                self.counted[one.key] = true

    def recall_counts(self) -> None:
        """After a start: what is true now was no news then."""
        for one in self.device.pack.series.get(None, ()):
            assert one.counted is not None
            true = one.counted.evaluate(Scope(self, self.watermark))
            if true is not None:
                self.counted[one.key] = true

    def forget_counts(self) -> None:
        """Counts after the watermark are made anew."""
        for one in self.device.pack.series.get(None, ()):
            if one.key in self.tracks:
                self.tracks[one.key].truncate(self.watermark)

    def plan(self, rule_id: str, instant: int | None) -> None:
        """Sets, moves or takes away the instant at which a rule must be looked at."""
        if instant is None:
            self.due.pop(rule_id, None)
        else:
            self.due[rule_id] = instant
            if self.next_due is None or instant < self.next_due:
                self.next_due = instant


class Heard(NamedTuple):
    """Up to when we know what there was to hear of a device: its silence counts from there."""

    until: int
    """Device time, Unix ms; 0: nothing was ever heard."""
    deaf: bool
    """That is when we could hear again, and not when it last spoke."""


class Scope:
    """A condition's view of one part at one instant: the fields that such a part has, then those of the device."""

    __slots__ = ("_heard", "_part", "_stale", "_values", "now")

    def __init__(self, part: Part, now: int, heard: Heard | None = None) -> None:
        """`heard`: when the device last said something, where that is not what the device remembers by now."""
        self._part = part
        self._values = part.values
        self._stale = part.device.pack.stale_ms
        self._heard = heard
        self.now = now

    @property
    def zone(self) -> tzinfo:
        return self._part.device.zone

    def field(self, name: str) -> Value | None:
        held = self._values.get(name)
        if held is None:
            held = held_value(self._part, name)
            if held is None:
                return None
        value, ts = held
        return None if self.now - ts > self._stale[name] else value

    def updated(self, name: str) -> int | None:
        held = held_value(self._part, name)
        if held is None:
            return None
        heard = self._heard
        # What we could not hear is no field's silence.
        return max(held[1], heard.until) if heard is not None and heard.deaf else held[1]

    def static(self, name: str) -> Value | None:
        return self._part.device.statics.get(name)

    def active(self, fault: str) -> bool:
        return self._part.active(fault)

    def heard(self) -> int | None:
        until = self._part.device.last_ts if self._heard is None else self._heard.until
        return until or None

    def track(self, key: str) -> Track | None:
        track = self._part.tracks.get(key)
        if track is None:
            track = self._part.device.parts[""].tracks.get(key)
        waiting = self._part.device.waiting
        if waiting and (waiting == ALL or isinstance(track, BucketTrack)):
            return None
        return track

    def siblings(self, name: str) -> Sequence[Value]:
        others = [part for part in self._part.device.parts.values() if part.name and part is not self._part]
        held = (part.values.get(name) for part in others)
        return [one[0] for one in held if one is not None and self.now - one[1] <= self._stale[name]]


def held_value(part: Part, name: str) -> tuple[Value, int] | None:
    """The newest value of a field and its device time: the part's, or the device's where no part has such a field."""
    held = part.values.get(name)
    if held is None and part.name and name not in part.device.pack.part_fields:
        return part.device.parts[""].values.get(name)
    return held


def _earlier(state: RuleState, step: int) -> RuleState:
    memo = dict(state.memo)
    if "clearing" in memo:
        memo["clearing"] -= step
    if "flips" in memo:
        memo["flips"] = [flip - step for flip in memo["flips"]]
    return state._replace(since=state.since - step, changed=state.changed - step, memo=memo)
