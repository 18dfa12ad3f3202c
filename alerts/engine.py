"""The rule engine: readings, events and time in, changes out. Pure: no clock, no database, no thread of its own.

It runs on device time. Each part of a device has a watermark, its newest accepted `ts`; older samples are history.
`for` is over at the first instant >= start + for: when a sample passes that instant, or by `advance` when none comes.
A false sample resets a pending rule; a missing or unknown one does not.

Two clocks meet in here. Silent devices are moved on by the wall clock (`advance`); what then fires is stamped with the
device's time all the same, so that live, backlog and replay give the same incidents.

One file, because every way from a sample or an instant to a change stands here, in the order in which it is taken.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from alerts.evidence import evidence
from alerts.memory import Device, Fault, Lag, Part, Scope
from alerts.rules import Rule
from core.incident import Change, RuleState
from core.kinds import KINDS, is_status, part_fields
from core.reading import Batch, Event, Reading, Value

TIMER_GRACE_MS: Final = 1_000
"""A timer waits this long on the wall for samples that are on their way and could still reset the rule."""

SETS_REMEMBERED: Final = 10_000
"""Sets of fields whose rules are kept at hand."""

KEPT_EVENT_IDS: Final = 16


class Engine:
    """State of all devices under one set of rules. Not thread-safe: its owner locks."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = {rule.id: rule for rule in rules}
        self._conditions = {
            (kind, part): [r for r in self._rules.values() if r.kind == kind and r.part == part and _samples(r)]
            for kind in KINDS
            for part in ("device", "port")
        }
        self._judged_fields = {
            kind: frozenset({"service_mode"}.union(*(r.watched for r in self._rules.values() if r.kind == kind)))
            for kind in KINDS
        }
        self._watchers: dict[tuple[str, str, frozenset[str]], Sequence[Rule]] = {}
        self._by_fault: dict[str, list[Rule]] = {}
        for rule in self._rules.values():
            for fault in rule.events:
                self._by_fault.setdefault(fault, []).append(rule)
        self._silence = {kind: [r for r in self._rules.values() if r.kind == kind and r.silence_ms] for kind in KINDS}
        self._devices: dict[str, Device] = {}
        self._timers: list[tuple[int, str, str, str]] = []
        """(wall time, device, part, rule): a heap. An entry that no longer fits its rule's state is skipped."""
        self._held_until = 0
        self._listening_since: int | None = None
        self.late_samples = 0
        """Samples older than their part's watermark: stored, not judged."""

    # --- what the owner tells ------------------------------------------------------------------------------------

    def know_device(self, device_id: str, kind: str, statics: Mapping[str, Value], *, now: int) -> None:
        """A device of the register, with its fixed facts. Its silence counts from now if it never speaks.

        The register has the last word on the kind: a device that was first heard as another kind starts anew.
        """
        if device_id in self._devices and self._devices[device_id].kind != kind:
            del self._devices[device_id]
        self._device(device_id, kind, now).statics = statics

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
        held = device.parts.setdefault(part, Part())
        judged = self._judged_fields[device.kind]
        for name, value in values.items():
            if name in judged and (name not in held.values or held.values[name][1] < value[1]):
                held.values[name] = value
        newer, held.watermark = ts > held.watermark, max(held.watermark, ts)
        if rx is not None:
            if newer:
                held.offset = rx - ts
            device.last_rx = max(device.last_rx or 0, rx)
            device.last_ts = max(device.last_ts, ts)
            device.lag.take(ts, rx)

    def restore_event(self, event: Event) -> None:
        """The newest event of a fault, raised or cleared. What was heard since stays."""
        if event.fault and event.device_id in self._devices:
            part = self._devices[event.device_id].parts.setdefault(event.part, Part())
            if event.fault not in part.faults or part.faults[event.fault].ts < event.ts:
                part.faults[event.fault] = Fault(event.ts, event.raised, (event.id,))

    def restore_state(self, state: RuleState) -> None:
        """A row that was saved before. Rows of rules or devices that are gone are left alone."""
        rule, device = self._rules.get(state.rule_id), self._devices.get(state.device_id)
        if rule is None or device is None:
            return
        part = device.parts.setdefault(state.part, Part())
        part.rules[state.rule_id] = state
        if _samples(rule):  # `since` is the time of a sample; the instant a timer fired at was none
            part.settled = max(part.settled, state.since)
            part.watermark = max(part.watermark, state.since)
        if state.state == "pending":
            self._set_timer(state.since + rule.for_ms + part.offset + TIMER_GRACE_MS, state)

    def listening(self, connected: bool, *, now: int) -> None:
        """Whether messages can reach us. Nobody is called silent for a time in which we could not hear."""
        self._listening_since = now if connected else None

    def hold(self, until: int) -> None:
        """Lets no timer fire before this wall time (Unix ms): messages that could reset a rule are on their way."""
        self._held_until = until

    # --- what devices say ----------------------------------------------------------------------------------------

    def observe(self, batch: Batch, changes: list[Change] | None = None) -> list[Change]:
        """The changes that these readings and events cause, in the order in which they arrived.

        They are added to `changes` as they are found: an error on the way does not take back what was decided before.
        """
        changes = [] if changes is None else changes
        for item in batch.items:
            device = self._device(item.device_id, item.kind, item.rx)
            alive = item.sign_of_life
            if alive:
                device.last_rx = max(device.last_rx or 0, item.rx)
                device.last_ts = max(device.last_ts, item.ts)
                device.lag.take(item.ts, item.rx)
            part = device.parts.get(item.part)
            if part is None:
                part = device.parts[item.part] = Part()
            if isinstance(item, Event):
                self._event(device, part, item, changes)
            else:
                self._reading(device, part, item, changes)
            if alive:
                self._heard(device, item, changes)
        return changes

    def advance(self, now: int) -> list[Change]:
        """Moves silent devices on to the wall time `now` (Unix ms)."""
        changes: list[Change] = []
        if now < self._held_until:
            return changes
        while self._timers and self._timers[0][0] <= now:
            _, device_id, part_name, rule_id = heapq.heappop(self._timers)
            rule, device = self._rules[rule_id], self._devices[device_id]
            part = device.parts.get(part_name)
            if part is None or rule.kind != device.kind:
                continue  # set before the device became another kind
            if rule.silence_ms is not None:
                self._check_silence(device_id, device, rule, now, changes)
            elif (state := part.rules.get(rule_id)) and state.state == "pending":
                due = state.since + rule.for_ms
                if due + part.offset + TIMER_GRACE_MS <= now:
                    self._fire_timer(device, part, state, due, changes)
                else:
                    self._set_timer(due + part.offset + TIMER_GRACE_MS, state)
        return changes

    # --- one sample, one event -----------------------------------------------------------------------------------

    def _reading(self, device: Device, part: Part, reading: Reading, changes: list[Change]) -> None:
        untimely = reading.ts < part.watermark or not reading.clock_ok
        if untimely and part.watermark and is_status(reading.kind, reading.fields):
            # A last will carries the time at which it was left with the broker, often before the clock was set; it
            # becomes true when it is published. So a status counts from when it comes, whatever time it carries.
            reading = reading._replace(ts=part.watermark)
        if reading.ts < part.watermark and part.clock_was_set_back(reading):
            self._move_back(device, part, changes)
            return
        news = part.take(reading.fields, reading.ts, self._judged_fields[device.kind])
        if reading.ts < part.watermark:
            self.late_samples += 1
            return
        part.behind.clear()
        self._fire_due(device, part, reading.ts, changes)
        offset = reading.rx - reading.ts
        part.offset = offset if reading.ts > part.watermark else min(offset, part.offset)  # a repeat is no later
        part.watermark = reading.ts
        self._judge(device, part, reading.device_id, reading.part, news, reading, changes)
        if not reading.part and len(device.parts) > 1:
            for name, other in device.parts.items():  # rules of ports may look at fields of the pile
                given = news - part_fields(device.kind).keys()
                if name and given and reading.ts >= other.settled:
                    instant = reading._replace(ts=max(reading.ts, other.watermark))
                    self._fire_due(device, other, instant.ts, changes)
                    self._judge(device, other, reading.device_id, name, given, instant, changes)

    def _move_back(self, device: Device, part: Part, changes: list[Change]) -> None:
        """Judges anew, on the new time line, the samples that seemed late and were not."""
        moved, again = part.move_back(), part.behind[:]
        for state in moved:
            rule = self._rules[state.rule_id]
            changes.append(Change(rule.finding, state, "none", state.changed))
            if state.state == "pending":
                self._set_timer(again[-1].rx + rule.for_ms + TIMER_GRACE_MS, state)
        part.behind.clear()
        device.lag = Lag()
        device.last_ts = again[-1].ts
        self.late_samples -= len(again) - 1
        for reading in again:
            device.lag.take(reading.ts, reading.rx)
            self._reading(device, part, reading, changes)

    def _judge(
        self,
        device: Device,
        part: Part,
        device_id: str,
        part_name: str,
        fields: Iterable[str],
        item: Reading | Event,
        changes: list[Change],
    ) -> None:
        """Evaluates the rules that look at one of these fields."""
        scope = Scope(device, part, item.ts)
        for rule in self._watching(device.kind, "port" if part_name else "device", frozenset(fields)):
            state = part.rules.get(rule.id)
            if state is not None and state.state == "firing":
                if _is_over(rule, scope):
                    self._to_idle(device, part, rule, state, item.ts, changes)
                continue
            assert rule.when is not None
            true = rule.when.evaluate(scope)
            if true and _muted(rule, scope):
                true = False
            if true and (state is None or state.state == "idle"):
                self._start(device, part, rule, device_id, part_name, item, changes)
            elif true is False and state is not None and state.state == "pending":
                self._to_idle(device, part, rule, state, item.ts, changes)

    def _watching(self, kind: str, part: str, fields: frozenset[str]) -> Sequence[Rule]:
        """The rules that look at one of these fields. Devices send the same few sets again and again."""
        found = self._watchers.get((kind, part, fields))
        if found is None:
            if len(self._watchers) > SETS_REMEMBERED:
                self._watchers.clear()
            found = tuple(rule for rule in self._conditions[kind, part] if not fields.isdisjoint(rule.watched))
            self._watchers[kind, part, fields] = found
        return found

    def _start(
        self,
        device: Device,
        part: Part,
        rule: Rule,
        device_id: str,
        part_name: str,
        item: Reading | Event,
        changes: list[Change],
    ) -> None:
        state = RuleState(device_id, part_name, rule.id, "pending", item.ts, item.ts)
        if rule.for_ms == 0:
            self._fire(device, part, rule, state, item.ts, item.rx, changes)
            return
        part.rules[rule.id] = state
        changes.append(Change(rule.finding, state, "none", item.ts))
        self._set_timer(item.rx + rule.for_ms + TIMER_GRACE_MS, state)

    def _event(self, device: Device, part: Part, event: Event, changes: list[Change]) -> None:
        if event.fault is None:
            return
        known = part.faults.get(event.fault)
        if known is not None and (event.ts < known.ts or (event.ts == known.ts and event.id in known.ids)):
            return  # older than what we know, or a repeat
        ids = (*known.ids, event.id) if known is not None and event.ts == known.ts else (event.id,)
        part.faults[event.fault] = Fault(event.ts, event.raised, ids[-KEPT_EVENT_IDS:])
        scope = Scope(device, part, event.ts)
        for rule in self._by_fault.get(event.fault, ()):
            self._event_rule(device, part, rule, event, scope, changes, stood=known is not None and known.raised)
        self._judge_fault(device, part, event, changes)

    def _event_rule(
        self,
        device: Device,
        part: Part,
        rule: Rule,
        event: Event,
        scope: Scope,
        changes: list[Change],
        *,
        stood: bool,
    ) -> None:
        """`stood`: until now the fault was known to be raised."""
        state = part.rules.get(rule.id) or RuleState(event.device_id, event.part, rule.id, "idle", event.ts, event.ts)
        if event.id in state.event_ids:
            return
        state = state._replace(event_ids=(*state.event_ids, event.id)[-KEPT_EVENT_IDS:])
        if event.raised:
            if _muted(rule, scope) or (rule.when is not None and not rule.when.evaluate(scope)):
                part.rules[rule.id] = state  # a repeat is judged by what was known when it came first
                changes.append(Change(rule.finding, state, "none", event.ts))
                return
            since = state.since if state.state == "firing" else event.ts
            self._fire(device, part, rule, state._replace(since=since), event.ts, event.rx, changes, event=event)
        elif state.state == "firing" and not any(part.active(fault) for fault in rule.events):
            if not stood and event.ts < state.changed:
                return  # the end of an earlier time, delivered again after a restart
            self._to_idle(device, part, rule, state, event.ts, changes)

    def _judge_fault(self, device: Device, part: Part, event: Event, changes: list[Change]) -> None:
        """Conditions that ask `active(...)` for this fault look again."""
        watching = [
            rule
            for rule in self._conditions[device.kind, "port" if event.part else "device"]
            if event.fault in rule.watched_faults
        ]
        if watching and event.ts >= part.settled:
            self._fire_due(device, part, event.ts, changes, watching)
            fields = frozenset().union(*(rule.watched for rule in watching))
            self._judge(device, part, event.device_id, event.part, fields, event, changes)

    # --- time ------------------------------------------------------------------------------------------------------

    def _fire_due(
        self, device: Device, part: Part, ts: int, changes: list[Change], rules: Sequence[Rule] | None = None
    ) -> None:
        """Of all rules or these: those whose `for` is over at `ts`, before what comes at that instant is looked at."""
        waiting = [state for state in part.rules.values() if state.state == "pending"]
        if not waiting:
            return
        due = [(state.since + self._rules[state.rule_id].for_ms, state.rule_id) for state in waiting]
        for at, rule_id in sorted(due):
            rule = self._rules[rule_id]
            if at <= ts and (rules is None or rule in rules):
                self._fire_timer(device, part, part.rules[rule_id], at, changes)

    def _fire_timer(self, device: Device, part: Part, state: RuleState, at: int, changes: list[Change]) -> None:
        """Its `for` is over. Whether that is late depends on the data it rests on, not on who looked when."""
        self._fire(device, part, self._rules[state.rule_id], state, at, at + part.offset, changes)

    def _heard(self, device: Device, item: Reading | Event, changes: list[Change]) -> None:
        """A sign of life ends silence."""
        part = device.parts[""]
        for rule in self._silence[device.kind]:
            state = part.rules.get(rule.id)
            if state is not None and state.state == "firing":
                self._to_idle(device, part, rule, state, max(item.ts, state.since), changes)
                self._set_silence_timer(item.device_id, rule, item.rx)

    def _check_silence(self, device_id: str, device: Device, rule: Rule, now: int, changes: list[Change]) -> None:
        part = device.parts[""]
        state = part.rules.get(rule.id)
        if state is not None and state.state == "firing":
            return
        assert rule.silence_ms is not None
        if self._listening_since is None:
            self._set_silence_timer(device_id, rule, now)
            return
        heard = max(device.last_rx or 0, self._listening_since)
        if heard + rule.silence_ms > now:
            self._set_silence_timer(device_id, rule, heard)
            return
        at = (device.last_ts or heard) + rule.silence_ms
        fresh = RuleState(device_id, "", rule.id, "firing", at, at)
        self._fire(device, part, rule, fresh, at, now, changes)

    def _set_silence_timer(self, device_id: str, rule: Rule, heard: int) -> None:
        assert rule.silence_ms is not None
        heapq.heappush(self._timers, (heard + rule.silence_ms, device_id, "", rule.id))

    def _set_timer(self, due: int, state: RuleState) -> None:
        heapq.heappush(self._timers, (due, state.device_id, state.part, state.rule_id))

    # --- changes ---------------------------------------------------------------------------------------------------

    def _fire(
        self,
        device: Device,
        part: Part,
        rule: Rule,
        state: RuleState,
        at: int,
        rx: int,
        changes: list[Change],
        event: Event | None = None,
    ) -> None:
        fired = state._replace(state="firing", changed=at)
        part.rules[rule.id] = fired
        late = rule.silence_ms is None and rx - device.lag.ms - at > rule.deadline_ms
        changes.append(Change(rule.finding, fired, "raise", at, late, evidence(device, part, rule, fired, at, event)))

    def _to_idle(
        self, device: Device, part: Part, rule: Rule, state: RuleState, ts: int, changes: list[Change]
    ) -> None:
        was_firing = state.state == "firing"
        idle = state._replace(state="idle", since=ts, changed=ts)
        part.rules[rule.id] = idle
        still = was_firing and any(
            other.state == "firing" and self._rules[other.rule_id].finding.group == rule.finding.group
            for other in part.rules.values()
        )
        at = max(ts, state.changed)  # what a timer fired cannot be over before it began
        changes.append(Change(rule.finding, idle, "clear" if was_firing and not still else "none", at))

    def _device(self, device_id: str, kind: str, now: int) -> Device:
        device = self._devices.get(device_id)
        if device is None:
            device = self._devices[device_id] = Device(kind, parts={"": Part()})
            for rule in self._silence[kind]:
                self._set_silence_timer(device_id, rule, now)
        return device


def _samples(rule: Rule) -> bool:
    """Whether a rule is judged on samples (and not on events or silence)."""
    return rule.when is not None and not rule.events


def _is_over(rule: Rule, scope: Scope) -> bool:
    """A firing rule ends by its own `clear`, else when its condition is false. Unknown changes nothing."""
    if rule.clear is not None:
        return rule.clear.evaluate(scope) is True
    return rule.when is not None and rule.when.evaluate(scope) is False


def _muted(rule: Rule, scope: Scope) -> bool:
    return bool(rule.mute_in) and scope.field("service_mode") in rule.mute_in
