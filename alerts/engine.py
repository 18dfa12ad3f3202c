"""The rule engine: readings, events and time in, changes out. Pure: no clock, no database, no thread of its own.

It runs on device time. Each part of a device has a watermark, its newest accepted `ts`; older samples are history.
`for` is over at the first instant >= start + for: when a sample passes that instant, or by `advance` when none comes.
A false sample resets a pending rule; a missing or unknown one does not. What each key of a rule means, point by
point: docs/rules.md.

Two clocks meet in here. Silent devices are moved on by the wall clock (`advance`); what then fires is stamped with the
device's time all the same, so that live, backlog and replay give the same incidents.

One file, because every way from a sample or an instant to a change stands here, in the order in which it is taken;
what a rule does once it is looked at stands in `alerts.course`.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from datetime import tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from alerts import late
from alerts.condition import NEVER_MS
from alerts.course import Course
from alerts.late import Message
from alerts.memory import Device, Fault, Heard, Lag, Part, Scope
from alerts.pack import MODE, Names, Pack
from alerts.rehearsal import Rehearsal
from alerts.rulebook import RuleBook
from alerts.rules import Rule
from alerts.sites import Sites
from core.faults import Severity
from core.incident import Change, Finding, RuleState, Words
from core.kinds import is_status
from core.reading import Batch, Event, Reading, Value

TIMER_GRACE_MS: Final = 1_000
"""A timer waits this long on the wall for samples that are on their way and could still reset the rule."""

MODE_ROW: Final = "~service-mode"
"""Stands among the saved states of rules: since when a device is in its service mode."""

NO_FINDING: Final = Finding(MODE_ROW, "", Severity.P4, Words("", ""), Words("", ""), "telemetry", needs_clear=False)

HOME_ZONE: Final = ZoneInfo("Asia/Shanghai")


class Engine:
    """State of all devices under one set of rules. Not thread-safe: its owner locks."""

    def __init__(self, book: RuleBook) -> None:
        self._book = book
        self._packs: dict[int, Pack] = {}
        self._devices: dict[str, Device] = {}
        self._timers: list[tuple[int, str, str, str]] = []
        """(wall time, device, part, rule): a heap. With a rule: its silence must be looked at; without: what is due.
        An entry that nothing waits for any more is skipped."""
        self._held_until = 0
        self._listening_since: int | None = None
        self._before = (0, 0)
        """Device and receive time of the last word of a device before the one that is looked at."""
        self._changes: list[Change] = []
        self._unsettled = True
        """Some rule may stand as another version of it decided."""
        self._again = False
        """Messages are judged a second time; what was taken in from them stays."""
        self._sites = Sites(book, self._devices, self._emit)
        self._course = Course(self._emit, self._sites.firing, self._arm)
        self.late_samples = 0
        """Samples older than their part's watermark: stored, not judged."""

    # --- what the owner tells ------------------------------------------------------------------------------------

    def know_device(
        self,
        device_id: str,
        kind: str,
        statics: Mapping[str, Value],
        *,
        now: int,
        zone: tzinfo = HOME_ZONE,
    ) -> None:
        """A device of the register, with its fixed facts. Its silence counts from now if it never speaks.

        The register has the last word on the kind: a device that was first heard as another kind starts anew.
        """
        if device_id in self._devices and self._devices[device_id].kind != kind:
            self._sites.forget(self._devices[device_id])
            del self._devices[device_id]
        device = self._device(device_id, kind, now)
        device.zone = zone
        if device.statics != statics:
            device.statics, before = statics, device.pack
            device.pack = self._pack(device_id, kind, statics)
            self._unsettled = self._unsettled or device.pack is not before

    def restore_values(
        self,
        device_id: str,
        part: str,
        values: Mapping[str, tuple[Value, int]],
        *,
        ts: int,
        rx: int | None,
        now: int,
    ) -> None:
        """What the series store remembers of a known device's part. What was heard since stays."""
        device = self._devices[device_id]
        held = device.part(part)
        for name, value in values.items():
            if name in device.pack.stale_ms and (name not in held.values or held.values[name][1] < value[1]):
                held.values[name] = value
        newer, held.watermark = ts > held.watermark, max(held.watermark, ts)
        if rx is not None:
            if newer:
                held.offset = rx - ts
            device.last_rx = max(device.last_rx or 0, rx)
            device.last_ts = max(device.last_ts, ts)
            device.lag.take(ts, rx)
        held.recall_counts()

    def rehearsal(self) -> Rehearsal:
        """What the series store still has of the samples that windows look at goes in there."""
        return Rehearsal(self._devices)

    def newest_ts(self, *, at_most: int) -> int:
        """The newest device time of all devices whose clock is not ahead of that, Unix ms; 0: nothing was heard."""
        every = (part.watermark for device in self._devices.values() for part in device.parts.values())
        return max((ts for ts in every if ts <= at_most), default=0)

    @property
    def window_fields(self) -> frozenset[str]:
        """The fields whose samples must be read for that."""
        series = [one for pack in self._packs.values() for some in pack.series.values() for one in some]
        counted = (one.counted.fields for one in series if one.counted is not None)
        return frozenset({one.field for one in series if one.field is not None}.union(*counted))

    @property
    def window_ms(self) -> int:
        """How far back samples must be read after a start; 0: no rule looks at a short window."""
        series = (one for pack in self._packs.values() for some in pack.series.values() for one in some)
        return max((one.keep_ms for one in series if not one.step_ms), default=0)

    def restore_event(self, event: Event) -> None:
        """The newest event of a fault, raised or cleared. What was heard since stays."""
        if event.fault and event.device_id in self._devices:
            part = self._devices[event.device_id].part(event.part)
            if event.fault not in part.faults or part.faults[event.fault].ts < event.ts:
                part.faults[event.fault] = Fault(event.ts, event.raised, (event.id,))

    def restore_state(self, state: RuleState) -> None:
        """A row that was saved before. Rows of devices that are gone are left alone; see also `reconcile`."""
        if self._sites.restore(state):
            return
        device = self._devices.get(state.device_id)
        if device is None:
            return
        part = device.part(state.part)
        if state.rule_id == MODE_ROW:
            part.mode_since = state.since
            return
        part.rules[state.rule_id] = state
        if state.memo.get("late"):
            part.late = (*part.late, state.rule_id)
        rule = device.pack.rules.get(state.rule_id)
        if rule is None:
            return
        if _samples(rule):  # `since` is the time of a sample; the instant a timer fired at was none
            part.settled = max(part.settled, state.since)
            part.watermark = max(part.watermark, state.since)
        self._course.plan(part, rule, state, None)

    def reconcile(self) -> list[Change]:
        """Settles states of rules that are gone, or say something else than when they were decided.

        Wanted after a start, and after devices were made known: another model can mean other parameters.
        """
        changes: list[Change] = []
        if self._unsettled:
            self._unsettled, self._changes = False, changes
            for device in self._devices.values():
                for part in list(device.parts.values()):
                    for state in list(part.rules.values()):
                        self._course.settle(part, state, device.pack.rules.get(state.rule_id))
            self._sites.settle()
            self.plan_all()
        return changes

    def plan_all(self) -> None:
        """Looks when time alone changes something; wanted once more when windows are known after a start."""
        for device in self._devices.values():
            for part in device.parts.values():
                if part.watermark:
                    self._course.plan_all(part)

    def reload(self, book: RuleBook, *, now: int) -> list[Change]:
        """Goes on with other rules: what did not change keeps its state, the rest is settled with a reason."""
        self._book = book
        self._packs.clear()
        self._sites.reload(book, now)
        changed: list[tuple[Part, Rule]] = []
        for device in self._devices.values():
            before, device.pack = device.pack, self._pack(device.id, device.kind, device.statics)
            others = [
                rule
                for rule in device.pack.rules.values()
                if _samples(rule) and (rule.id not in before.rules or before.rules[rule.id].version != rule.version)
            ]
            for part in device.parts.values():
                part.unseen = True
                changed += [(part, rule) for rule in others if part.watermark and rule.part == part.type]
            for rule in device.pack.silence:
                self._set_silence_timer(device, rule, max(device.last_rx or 0, now))
        self._unsettled = True
        made = self.reconcile()
        self._changes = made
        for part, rule in changed:
            self._course.look_at_changed(part, rule)
        return made

    def listening(self, connected: bool, *, now: int) -> None:
        """Whether messages can reach us. Nobody is called silent for a time in which we could not hear."""
        self._listening_since = now if connected else None

    def hold(self, until: int) -> None:
        """Lets no timer fire before this wall time (Unix ms): messages that could reset a rule are on their way."""
        self._held_until = until

    @property
    def troubles(self) -> Mapping[str, str]:
        """Rules that could not be evaluated, with the last reason: a visible state, never silence."""
        return self._course.troubles

    # --- what devices say ----------------------------------------------------------------------------------------

    def observe(self, batch: Batch, changes: list[Change] | None = None) -> list[Change]:
        """The changes that these readings and events cause, in the order in which they arrived.

        They are added to `changes` as they are found: an error on the way does not take back what was decided before.
        Readings of one snapshot are taken in together, and judged after that.
        """
        self._changes = changes = [] if changes is None else changes
        overtaken: dict[str, Device] = {}
        items, index = batch.items, 0
        while index < len(items):
            item, start = items[index], index
            index += 1
            if isinstance(item, Reading):
                while index < len(items) and _one_snapshot(item, items[index]):
                    index += 1
            device = self._hear(item)
            if device.id in overtaken and not late.fills(device, item):
                self._judge_again(overtaken.pop(device.id))  # else it would count as one of those since the gap
            if self._is_late(device, items[start:index]):
                overtaken[device.id] = device
                continue
            self._take_message(device, items[start:index])
            if item.sign_of_life:
                self._end_silence(device, item)
        for device in overtaken.values():
            self._judge_again(device)
        return changes

    def advance(self, now: int) -> list[Change]:
        """Moves silent devices on to the wall time `now` (Unix ms)."""
        changes: list[Change] = []
        self._changes = changes
        if now < self._held_until:
            return changes
        while (due := min(self._next_timer(), self._sites.next_due())) <= now:
            if self._sites.next_due() <= due:  # what stands for many is looked at before each of them
                self._sites.advance(due, self._listening_since)
                for device, at in self._sites.freed():
                    self._course.lift(device, at)
            else:
                self._timer(heapq.heappop(self._timers))
        for device, at in self._sites.freed():
            self._course.lift(device, at)
        return changes

    # --- one snapshot, one event ---------------------------------------------------------------------------------

    def _hear(self, item: Reading | Event) -> Device:
        device = self._device(item.device_id, item.kind, item.rx)
        self._before = (device.last_ts, device.last_rx or 0)
        if item.sign_of_life:
            device.last_rx = max(device.last_rx or 0, item.rx)
            device.last_ts = max(device.last_ts, item.ts)
            device.lag.take(item.ts, item.rx)
        return device

    def _take_message(self, device: Device, message: Message) -> None:
        first = message[0]
        if isinstance(first, Event):
            self._event(device, first)
        else:
            self._snapshot(device, message)

    def _snapshot(self, device: Device, readings: Sequence[Reading | Event]) -> None:
        """Takes in all parts of a snapshot, then judges each."""
        taken: list[tuple[Part, Reading, Names, Names]] = []
        for reading in readings:
            assert isinstance(reading, Reading)
            self._take(device, reading, taken)
        for part, reading, changed, reported in taken:
            self._judge(part, changed, reported, reading)
        if len(device.parts) > 1:
            self._judge_ports(device, taken)

    def _take(self, device: Device, reading: Reading, taken: list[tuple[Part, Reading, Names, Names]]) -> None:
        part = device.part(reading.part)
        untimely = reading.ts < part.watermark or not reading.clock_ok
        if untimely and part.watermark and is_status(reading.kind, reading.fields):
            # A last will carries the time at which it was left with the broker, often before the clock was set; it
            # becomes true when it is published. So a status counts from when it comes, whatever time it carries.
            reading = reading._replace(ts=part.watermark)
        if reading.ts < part.watermark:
            if part.clock_was_set_back(reading):
                self._move_back(device, part)
            else:
                part.take(reading.fields, reading.ts)
                self.late_samples += 1
            return
        part.behind.clear()
        ts = reading.ts
        for other in device.parts.values():
            if other.next_due is not None and other.next_due <= ts and ts >= other.settled:
                self._run_due(other, ts, self._heard(other, *self._before))
        changed, reported = part.take(reading.fields, ts)
        if MODE in changed and device.pack.mutes:
            self._emit(Change(NO_FINDING, RuleState(device.id, part.name, MODE_ROW, "idle", ts, ts), "none", ts))
        offset = reading.rx - ts
        part.offset = offset if ts > part.watermark else min(offset, part.offset)  # a repeat is no later
        part.watermark = ts
        if part.unseen:
            part.unseen = False
            self._course.begin(part, Scope(part, ts), reading.rx)
        if reported and not self._again:
            part.keep_samples(reported, reading.fields, ts)
        taken.append((part, reading, changed, reported))

    def _judge(self, part: Part, changed: Names, reported: Names, item: Reading | Event) -> None:
        looking, ending = part.device.pack.to_judge(part.type, changed, reported)
        counts = None in part.device.pack.series
        if looking or ending or counts:
            scope = Scope(part, item.ts)
            if counts:
                part.count((*changed, *reported), scope)
            self._course.look_at(part, looking, ending, scope, item.rx)
        if part.late:
            self._course.no_longer_late(part, item.ts, item.rx - part.device.lag.ms - item.ts)

    def _judge_ports(self, device: Device, taken: Sequence[tuple[Part, Reading, Names, Names]]) -> None:
        """Rules of ports look at fields of the pile too, and at those of their neighbours."""
        pack = device.pack
        compared: frozenset[str] = frozenset()
        for part, reading, changed, reported in taken:
            if part.name:
                compared |= pack.siblings.intersection(reported)
                continue
            shared = tuple(name for name in changed if name not in pack.part_fields)
            timed = tuple(name for name in reported if name not in pack.part_fields)
            looking, ending = pack.to_judge("port", shared, timed)
            self._look_at_ports(device, looking + ending, reading, ())
        if compared:
            # Once for the snapshot. A port that reported the same fields was judged with all of it taken in.
            done = {part.name for part, _, _, reported in taken if compared.issubset(reported)}
            self._look_at_ports(device, pack.comparing(compared), taken[-1][1], done)

    def _look_at_ports(self, device: Device, rules: Sequence[Rule], reading: Reading, done: Collection[str]) -> None:
        for other in device.parts.values() if rules else ():
            if other.name and other.name not in done and reading.ts >= other.settled:
                scope = Scope(other, max(reading.ts, other.watermark))
                self._course.look_at(other, rules, (), scope, reading.rx)

    def _move_back(self, device: Device, part: Part) -> None:
        """Judges anew, on the new time line, the samples that seemed late and were not."""
        moved, again = part.move_back(), part.behind[:]
        for state in moved:
            rule = device.pack.rules.get(state.rule_id)
            if rule is not None:
                self._emit(Change(rule.finding, state, "none", state.changed, reason="clock-set-back"))
        part.behind.clear()
        device.lag, device.gap = Lag(), None
        device.seq_ts = again[-1].ts
        device.last_ts = again[-1].ts
        self.late_samples -= len(again) - 1
        part.offset = again[-1].rx - again[-1].ts
        for state in moved:
            rule = device.pack.rules.get(state.rule_id)
            if rule is not None:
                self._course.plan(part, rule, state, None)
        for reading in again:
            device.lag.take(reading.ts, reading.rx)
            self._snapshot(device, [reading])

    def _event(self, device: Device, event: Event) -> None:
        if event.fault is None:
            return
        part = device.part(event.part)
        for other in device.parts.values():
            if other.next_due is not None and other.next_due <= event.ts and event.ts >= other.settled:
                self._run_due(other, event.ts, self._heard(other, *self._before))
        known = part.faults.get(event.fault)
        if not part.take_event(event):
            return
        pack = part.device.pack
        for rule in pack.raised_by(event.fault):
            self._course.event(part, rule, event, stood=known is not None and known.raised)
        if None in pack.series:
            part.count(None, Scope(part, event.ts))
        asking = pack.asking(part.type, event.fault)
        if asking and event.ts >= part.settled:
            scope = Scope(part, event.ts)
            for rule in asking:
                self._course.look(part, rule, scope, event.rx)

    # --- messages that others overtook -----------------------------------------------------------------------------

    def _is_late(self, device: Device, message: Message) -> bool:
        """Whether a message belongs into a gap of its device's numbers. Opens, fills and gives up gaps on the way."""
        first = message[0]
        seq, gap = first.seq, device.gap
        if seq is None or not first.clock_ok or not first.sign_of_life:
            return False
        if gap is not None and seq in gap.missing:
            gap.missing.discard(seq)
            gap.since.append(message)
            for one in message:
                if isinstance(one, Reading):
                    part = device.part(one.part)
                    timed = tuple(name for name in one.fields if name in device.pack.timed)
                    part.keep_samples(timed, one.fields, one.ts)
            return True
        known = device.seq
        if known is None or seq > known + late.WIDEST or (seq <= known and first.ts > device.seq_ts):
            device.seq, device.seq_ts, device.gap = seq, first.ts, None  # the first number, or another numbering
        elif seq > known:
            device.seq, device.seq_ts = seq, max(device.seq_ts, first.ts)
            if seq > known + 1:
                if gap is None:
                    gap = late.Gap(late.copied(device.parts), first.ts, set(), groups=late.open_groups(device))
                    device.gap = gap
                gap.missing.update(range(known + 1, seq))
            if gap is not None:
                gap.since.append(message)
                if gap.is_hopeless(first.ts):
                    device.gap = None
        return False

    def _judge_again(self, device: Device) -> None:
        """Judges all since the gap in order, and tells what comes out differently."""
        gap, before, told = device.gap, device.parts, self._changes
        device.parts = late.copied(gap.base)
        for name in before.keys() - device.parts.keys():  # first heard of since then; their samples stay
            device.part(name).tracks = before[name].tracks
        device.gap, self._again, self._changes = None, True, []
        self._before = (device.last_ts, device.last_rx or 0)
        for part in device.parts.values():
            part.forget_counts()
        for message in late.in_order(gap.since):
            self._take_message(device, message)
        for name, upto in gap.ran_to.items():
            self._run_due(device.part(name), upto)
        anew, self._changes, self._again = self._changes, told, False
        for rule in device.pack.silence:  # silence is what we do not hear: it has nothing to do with order
            if (state := before[""].rules.get(rule.id)) is not None:
                device.parts[""].rules[rule.id] = state
        for change in late.corrections(device, gap, anew):
            self._emit(change)
        device.gap = gap if gap.missing else None
        for part in device.parts.values():
            part.timer_at = None
            self._arm(part)

    # --- time ------------------------------------------------------------------------------------------------------

    def _run_due(self, part: Part, upto: int, heard: Heard | None = None) -> None:
        """What time alone brings about up to an instant, in order, before what comes at that instant is looked at."""
        if part.device.gap is not None:
            part.device.gap.ran_to[part.name] = max(upto, part.device.gap.ran_to.get(part.name, 0))
        rank = part.device.pack.rank
        while (at := part.next_due) is not None and at <= upto:
            due = [rule_id for rule_id, instant in part.due.items() if instant <= at]
            for rule_id in sorted(due, key=lambda one: rank.get(one, 0)):
                self._course.due(part, rule_id, at, heard)
                if part.due.get(rule_id, at + 1) <= at:
                    part.plan(rule_id, at + 1)  # whatever a condition says, time goes on
            part.next_due = min(part.due.values(), default=None)

    def _next_timer(self) -> int:
        return self._timers[0][0] if self._timers else NEVER_MS

    def _timer(self, timer: tuple[int, str, str, str]) -> None:
        """The wall time of a timer is there."""
        now, device_id, part_name, rule_id = timer
        device = self._devices.get(device_id)
        part = device.parts.get(part_name) if device is not None else None
        if device is None or part is None:
            return  # set before the device became another kind
        if rule_id:
            self._check_silence(device, rule_id, now)
            return
        part.timer_at = None
        if part.next_due is not None and part.next_due + part.offset + TIMER_GRACE_MS <= now:
            self._run_due(part, now - part.offset - TIMER_GRACE_MS, self._silent_since(part, now))
        self._arm(part)

    def _arm(self, part: Part) -> None:
        """Sets a timer for the part's next due, unless an earlier one is set."""
        if part.next_due is None or part.next_due >= NEVER_MS:
            return
        wall = part.next_due + part.offset + TIMER_GRACE_MS
        if part.timer_at is None or wall < part.timer_at:
            part.timer_at = wall
            heapq.heappush(self._timers, (wall, part.device.id, part.name, ""))

    def _silent_since(self, part: Part, now: int) -> Heard:
        """Of a device that says nothing, at this wall time."""
        if self._listening_since is None:
            return Heard(now - part.offset, deaf=True)
        return self._heard(part, part.device.last_ts, part.device.last_rx or 0)

    def _heard(self, part: Part, last_ts: int, last_rx: int) -> Heard:
        since = self._listening_since
        if since is None or last_rx >= since:
            return Heard(last_ts, deaf=False)
        return Heard(max(last_ts, since - part.offset), deaf=True)

    def _end_silence(self, device: Device, item: Reading | Event) -> None:
        """A sign of life ends silence, and wakes rules that wait for one."""
        part = device.parts[""]
        for rule in device.pack.silence:
            state = part.rules.get(rule.id)
            if state is not None and state.state in ("firing", "held"):
                at = max(item.ts, state.since)
                if state.state == "firing":
                    self._course.end(part, rule, state, at)
                else:
                    self._course.drop(part, rule, state, at)
                self._set_silence_timer(device, rule, item.rx)
        for rule in device.pack.listening:
            self._course.look(part, rule, Scope(part, max(item.ts, part.watermark)), item.rx)
        self._sites.heard(device, item.rx)

    def _check_silence(self, device: Device, rule_id: str, now: int) -> None:
        part, rule = device.parts[""], device.pack.rules.get(rule_id)
        if rule is None or rule.silence_ms is None:
            return  # the rule is gone
        state = part.rules.get(rule.id)
        if state is not None and state.state in ("firing", "held"):
            return
        if self._listening_since is None:
            self._set_silence_timer(device, rule, now)
            return
        heard = max(device.last_rx or 0, self._listening_since)
        if heard + rule.silence_ms > now:
            self._set_silence_timer(device, rule, heard)
            return
        at = (device.last_ts or heard) + rule.silence_ms
        memo = state.memo if state is not None else {}
        fresh = RuleState(device.id, "", rule.id, "pending", at, at, (), rule.version, memo)
        self._course.satisfied(part, rule, fresh, at, now)

    def _set_silence_timer(self, device: Device, rule: Rule, heard: int) -> None:
        heapq.heappush(self._timers, (heard + (rule.silence_ms or 0), device.id, "", rule.id))

    # --- small things ----------------------------------------------------------------------------------------------

    def _emit(self, change: Change) -> None:
        self._changes.append(change)
        device = self._devices.get(change.state.device_id)
        if device is not None and device.gap is not None:
            device.gap.decided.append(change)
            device.gap.follow(change)

    def _device(self, device_id: str, kind: str, now: int) -> Device:
        device = self._devices.get(device_id)
        if device is None:
            device = self._devices[device_id] = Device(device_id, kind, self._pack(device_id, kind, {}), HOME_ZONE)
            device.part("")
            for rule in device.pack.silence:
                self._set_silence_timer(device, rule, now)
            self._sites.join(device, now)
        return device

    def _pack(self, device_id: str, kind: str, statics: Mapping[str, Value]) -> Pack:
        model = statics.get("model")
        rules = self._book.rules_for(kind, device_id=device_id, model=None if model is None else str(model))
        pack = self._packs.get(id(rules))
        if pack is None:
            pack = self._packs[id(rules)] = Pack(kind, rules)
        return pack


def _one_snapshot(first: Reading, other: Reading | Event) -> bool:
    return (
        other.device_id == first.device_id
        and isinstance(other, Reading)
        and (other.ts, other.rx, other.seq) == (first.ts, first.rx, first.seq)
        and other.part != first.part
    )


def _samples(rule: Rule) -> bool:
    """Whether a rule is judged on samples (and not on events or silence)."""
    return rule.when is not None and not rule.events
