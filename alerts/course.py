"""The course of one rule on one part: idle, pending, held or firing, and what leads from one to the next.

    idle     -> pending   `when` became true
    pending  -> idle      `when` became false
    pending  -> firing    `for` is over: `raise`; or -> held, while what inhibits the rule is firing
    held     -> firing    that is over, and it is still true; -> idle when it is not
    firing   -> idle      it is over (`clear`, else `when` is false) for `clear_for`, and then for `keep_firing_for`:
                          `clear`; `ease` where less urgent rules of the group still fire

Pure: what is decided goes out through `emit`. Times are device times, Unix ms.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from alerts.condition import NEVER_MS
from alerts.evidence import evidence
from alerts.memory import KEPT_EVENT_IDS, Device, Heard, Part, Scope
from alerts.pack import MODE
from alerts.rules import Rule
from core.faults import Severity
from core.incident import Change, Finding, RuleState, Words
from core.reading import Event

Emit = Callable[[Change], None]


class Course:
    """Moves rules on. One for an engine; it keeps nothing of a device itself."""

    def __init__(self, emit: Emit, site_groups: Callable[[str], Collection[str]], arm: Callable[[Part], None]) -> None:
        """`site_groups` names the fault groups that fire for a whole site; `arm` sets a timer for a part's next due."""
        self._emit = emit
        self._site_groups = site_groups
        self._arm = arm
        self.troubles: dict[str, str] = {}
        """By rule: why it could not be evaluated, the last time it could not."""
        self._was_muted = False

    # --- looked at, because a value came or an instant is there --------------------------------------------------

    def look_at(self, part: Part, looking: Sequence[Rule], ending: Sequence[Rule], scope: Scope, rx: int) -> None:
        """Looks at all of these: the way of every message.

        Most rules never left idle on a part, and do not leave it now: for those that only values can change, that is
        all there is to find out. `ending`: a field was reported anew, which can end them but not begin them.
        """
        pack, states, dues, now = part.device.pack, part.rules, part.due, scope.now
        for rule in looking:
            if rule.id in pack.simple and rule.id not in states:
                try:
                    if not rule.when.evaluate(scope):  # type: ignore[union-attr] # simple rules have a condition
                        continue
                except Exception:  # noqa: BLE001, S110 - `look` says what is wrong
                    pass
            self.look(part, rule, scope, rx)
        for rule in ending:
            due = dues.get(rule.id)
            if due is None or rule.id in states or due > now + pack.soonest[rule.id]:
                self._look_for_end_only(part, rule, scope, rx)

    def look(self, part: Part, rule: Rule, scope: Scope, rx: int) -> None:
        """Evaluates the rule at `scope.now`. A rule that cannot be evaluated is named, and stalls no other."""
        self._was_muted = False
        try:
            self._look(part, rule, scope, rx)
        except Exception as error:  # noqa: BLE001 - whatever a condition does wrong must not end the alarms of others
            self.troubles[rule.id] = f"{type(error).__name__}: {error} ({part.device.id})"
            return
        if self._was_muted or rule.id in part.device.pack.slow:
            self.plan(part, rule, part.rules.get(rule.id), scope)
        elif (soonest_ms := part.device.pack.soonest.get(rule.id)) is not None:
            self._plan_again(part, rule, scope, soonest_ms)

    def _look_for_end_only(self, part: Part, rule: Rule, scope: Scope, rx: int) -> None:
        state = part.rules.get(rule.id)
        if state is not None and state.state != "idle":
            self.look(part, rule, scope, rx)
        else:
            self._plan_again(part, rule, scope, part.device.pack.soonest[rule.id])

    def _plan_again(self, part: Part, rule: Rule, scope: Scope, soonest_ms: int) -> None:
        """After a report: the instant that is set holds, unless this report can make the verdict change before it."""
        due = part.due.get(rule.id)
        if due is None or due >= NEVER_MS:
            state = part.rules.get(rule.id)
            if (state is not None and state.state != "idle") or not _is_guarded(rule, scope):
                self.plan(part, rule, state, scope)
        elif scope.now + soonest_ms < due:
            part.plan(rule.id, scope.now + soonest_ms)
            self._arm(part)

    def due(self, part: Part, rule_id: str, at: int, heard: Heard | None) -> None:
        """Time has come for a rule: its `for` is over, its end has lasted, or its condition changes by time alone."""
        rule, state = part.device.pack.rules.get(rule_id), part.rules.get(rule_id)
        part.plan(rule_id, None)
        if rule is None:
            return
        if state is not None:
            self._pass_time(part, rule, state, at)
        scope = Scope(part, at, heard)
        pace_ms = part.device.pack.pace.get(rule_id)
        if pace_ms is not None and (early_ms := (part.watermark - at) % pace_ms):
            # A window: at this pace, counted from the last report, so that a restart changes nothing.
            part.plan(rule_id, min([at + early_ms, *_deadlines(rule, part.rules.get(rule_id))]))
        elif rule_id in part.device.pack.waking and (not rule.plain or part.rules.get(rule_id) is state):
            self.look(part, rule, scope, at + part.offset)
        else:
            self.plan(part, rule, part.rules.get(rule_id), scope)

    def _pass_time(self, part: Part, rule: Rule, state: RuleState, at: int) -> None:
        if state.state == "pending" and rule.events:
            if state.since + rule.within_ms <= at:
                self.drop(part, rule, state, at)
        elif state.state == "pending":
            if state.since + rule.for_ms <= at:
                self.satisfied(part, rule, state, state.since + rule.for_ms)
        elif state.state == "firing" and (over := _over_at(rule, state)) is not None and over <= at:
            self.end(part, rule, state, over, reason="settled" if state.memo.get("unstable") else "")

    def _look(self, part: Part, rule: Rule, scope: Scope, rx: int) -> None:
        state = part.rules.get(rule.id)
        stage = "idle" if state is None else state.state
        if state is not None and stage == "firing":
            if not rule.events:
                self._look_for_end(part, rule, state, scope)
        elif state is not None and stage == "held":
            if not rule.events and _is_over(rule, scope):
                self.drop(part, rule, state, scope.now)
        elif rule.events:
            if state is not None and stage == "pending" and self._is_true(part, rule, scope):
                self.satisfied(part, rule, state, scope.now, rx)
        else:
            true = self._is_true(part, rule, scope)
            if true and stage == "idle":
                self._start(part, rule, scope.now, rx)
            elif true is False and state is not None and stage == "pending":
                self.drop(part, rule, state, scope.now)

    def _start(self, part: Part, rule: Rule, at: int, rx: int, reason: str = "") -> None:
        known = part.rules.get(rule.id)
        memo = known.memo if known is not None else {}
        state = RuleState(part.device.id, part.name, rule.id, "pending", at, at, (), rule.version, memo)
        if rule.for_ms == 0:
            self.satisfied(part, rule, state, at, rx, reason=reason)
        else:
            self._set(part, rule, state, at, reason)

    def _look_for_end(self, part: Part, rule: Rule, state: RuleState, scope: Scope) -> None:
        over, clearing, now = _is_over(rule, scope), state.memo.get("clearing"), scope.now
        clear_for_ms, keep_ms = _waits(rule, state)
        if clearing is None:
            if over is True and clear_for_ms + keep_ms == 0:
                self.end(part, rule, state, now)
            elif over is True:
                self._set(part, rule, state._replace(memo={**state.memo, "clearing": now}), now)
        elif over is False and (now < clearing + clear_for_ms or self._is_true(part, rule, scope)):
            self._set(part, rule, state._replace(memo=without(state.memo, "clearing")), now)

    def _is_true(self, part: Part, rule: Rule, scope: Scope) -> bool | None:
        """Whether the rule may start: its condition, false outside its schedule and in modes that mute it."""
        if rule.schedule is not None and not rule.schedule.covers(scope.now, scope.zone):
            return False
        true = rule.when.evaluate(scope)  # type: ignore[union-attr] # asked of rules with a condition only
        if true and rule.mute_in and _muted(part, rule, scope):
            self._was_muted = True
            return False
        return true

    # --- firing and ending ---------------------------------------------------------------------------------------

    def satisfied(
        self,
        part: Part,
        rule: Rule,
        state: RuleState,
        at: int,
        rx: int | None = None,
        *,
        event: Event | None = None,
        reason: str = "",
    ) -> None:
        """All that the rule waited for is there. `rx`: when we learnt of it; None: when its data reached us."""
        rx = at + part.offset if rx is None else rx
        if rule.inhibited_by and self._inhibited(part, rule):
            if state.state != "held":
                self._set(part, rule, state._replace(state="held", changed=at, version=rule.version), at)
            return
        fired, news = _fired(rule, state, at)
        late = rule.silence_ms is None and rx - part.device.lag.ms - at > rule.deadline_ms
        if late:
            fired = fired._replace(memo={**fired.memo, "late": True})
            part.late = (*part.late, rule.id)
        part.rules[rule.id] = fired
        told = evidence(part, rule, fired, at, event)
        severity = self._most_urgent(part, rule.finding.group) or rule.finding.severity
        self._emit(Change(rule.finding, fired, "raise", at, late, told, severity, news or reason))
        self.plan(part, rule, fired, None)

    def end(self, part: Part, rule: Rule, state: RuleState, at: int, reason: str = "") -> None:
        """A firing rule is over."""
        flips = state.memo.get("flips") if rule.flap is not None and not state.memo.get("unstable") else None
        idle = state._replace(
            state="idle",
            since=at,
            changed=max(at, state.changed),  # a timer may have fired it later than what ends it was measured
            version=rule.version,
            memo={"flips": flips} if flips else {},
        )
        self._ended(part, rule.finding, state, idle, at, reason)
        self.plan(part, rule, idle, None)

    def drop(self, part: Part, rule: Rule, state: RuleState, at: int) -> None:
        """A rule that was pending or held back is over, and nobody ever heard of it."""
        self._set(part, rule, state._replace(state="idle", since=at, changed=at), at)

    def _ended(self, part: Part, finding: Finding, state: RuleState, idle: RuleState, at: int, reason: str) -> None:
        group = finding.group
        before = self._most_urgent(part, group)
        part.rules[idle.rule_id] = idle
        part.late = tuple(rule_id for rule_id in part.late if rule_id != idle.rule_id)
        left = self._most_urgent(part, group)
        at = max(at, state.changed)  # what a timer fired cannot be over before it began
        if left is None:
            self._emit(Change(finding, idle, "clear", at, reason=reason))
            if group in part.device.pack.inhibiting:
                self.lift(part.device, at + part.offset)
        else:
            effect = "ease" if before is not None and left > before else "none"
            self._emit(Change(finding, idle, effect, at, severity=left, reason=reason))  # type: ignore[arg-type]

    def no_longer_late(self, part: Part, at: int, lateness_ms: int) -> None:
        """A fault that was history when it reached us still stands now: whoever sleeps must hear of it.

        `at`, `lateness_ms`: of the sample that says so.
        """
        for rule_id in part.late:
            rule, state = part.device.pack.rules.get(rule_id), part.rules[rule_id]
            if rule is None or lateness_ms > rule.deadline_ms or "clearing" in state.memo:
                continue
            fresh = state._replace(memo=without(state.memo, "late"))
            part.rules[rule_id] = fresh
            part.late = tuple(other for other in part.late if other != rule_id)
            told = evidence(part, rule, fresh, at, None)
            severity = self._most_urgent(part, rule.finding.group)
            self._emit(Change(rule.finding, fresh, "raise", at, False, told, severity, "still-true"))

    # --- what holds rules back -----------------------------------------------------------------------------------

    def lift(self, device: Device, wall: int) -> None:
        """Something that inhibits is over: held rules that nothing else holds back fire now."""
        for part in device.parts.values():
            held = [state for state in part.rules.values() if state.state == "held"]
            for state in sorted(held, key=lambda one: device.pack.rank.get(one.rule_id, 0)):
                rule = device.pack.rules.get(state.rule_id)
                if rule is not None and not self._inhibited(part, rule):
                    at = max(state.changed, wall - part.offset)
                    if rule.when is not None and not rule.events and _is_over(rule, Scope(part, at)):
                        self.drop(part, rule, state, at)
                    else:
                        self.satisfied(part, rule, state, at, reason="inhibition-over")

    def _inhibited(self, part: Part, rule: Rule) -> bool:
        groups = rule.inhibited_by
        if not groups.isdisjoint(self._site_groups(part.device.site)):
            return True
        own = part.device.parts[""] if part.name else part
        return any(not groups.isdisjoint(_firing_groups(one)) for one in {part.name: part, "": own}.values())

    def _most_urgent(self, part: Part, group: str) -> Severity | None:
        """The most urgent rule of a group that fires on a part."""
        rules = part.device.pack.rules
        firing = (rules.get(state.rule_id) for state in part.rules.values() if state.state == "firing")
        return min((r.finding.severity for r in firing if r is not None and r.finding.group == group), default=None)

    # --- events --------------------------------------------------------------------------------------------------

    def event(self, part: Part, rule: Rule, event: Event, *, stood: bool) -> None:
        """The device itself raises or clears a fault. `stood`: until now the fault was known to be raised."""
        state = part.rules.get(rule.id)
        if state is None:
            state = RuleState(part.device.id, part.name, rule.id, "idle", event.ts, event.ts, (), rule.version)
        if event.id in state.event_ids:
            return
        state = state._replace(event_ids=(*state.event_ids, event.id)[-KEPT_EVENT_IDS:])
        if event.raised:
            self._raised(part, rule, state, event)
        elif state.state in ("pending", "held"):
            self.drop(part, rule, state, event.ts)
        elif state.state == "firing" and not any(part.active(fault) for fault in rule.events):
            if not stood and event.ts < state.changed:
                return  # the end of an earlier time, delivered again after a restart
            self._end_of_event(part, rule, state, event.ts)

    def _raised(self, part: Part, rule: Rule, state: RuleState, event: Event) -> None:
        scope = Scope(part, event.ts)
        outside = rule.schedule is not None and not rule.schedule.covers(scope.now, scope.zone)
        if rule.when is None:
            stands = not outside and not _muted(part, rule, scope)
        else:
            stands = self._is_true(part, rule, scope) is True
        if not stands:
            # A repeat is judged by what was known when it came first.
            if rule.within_ms and state.state in ("idle", "pending"):
                state = state._replace(state="pending", since=event.ts, changed=event.ts)
            self._set(part, rule, state, event.ts)
            return
        since = state.since if state.state == "firing" else event.ts
        memo = without(state.memo, "clearing")
        self.satisfied(part, rule, state._replace(since=since, memo=memo), event.ts, event.rx, event=event)

    def _end_of_event(self, part: Part, rule: Rule, state: RuleState, at: int) -> None:
        if sum(_waits(rule, state)) == 0:
            self.end(part, rule, state, at)
        elif "clearing" not in state.memo:
            self._set(part, rule, state._replace(memo={**state.memo, "clearing": at}), at)

    # --- other rules than before ---------------------------------------------------------------------------------

    def settle(self, part: Part, state: RuleState, rule: Rule | None) -> None:
        """After a start or a reload: what became of a state whose rule is gone, or says something else now."""
        at = max(part.watermark, state.changed)
        if rule is None:
            part.plan(state.rule_id, None)
            if state.state == "firing":
                idle = state._replace(state="idle", since=at, changed=at, memo={})
                self._ended(part, finding_of(state), state, idle, at, "rule-deleted")
            elif state.state != "idle":
                idle = state._replace(state="idle", since=at, changed=at)
                self._emit(Change(finding_of(state), idle, "none", at, reason="rule-deleted"))
            part.rules.pop(state.rule_id, None)
        elif state.version not in ("", rule.version):
            self._settle_changed(part, rule, state, at)

    def look_at_changed(self, part: Part, rule: Rule) -> None:
        """A rule that says something else now, and never left idle on this part, so that no state tells of it."""
        at = part.watermark
        if rule.id not in part.rules and self._is_true(part, rule, Scope(part, at)):
            self._start(part, rule, at, at + part.offset, "rule-changed")

    def plan_all(self, part: Part) -> None:
        """After a start or a reload: rules that time alone can change, windows that are known now among them."""
        for rule_id in part.device.pack.waking:
            rule = part.device.pack.rules[rule_id]
            if rule.part == part.type:
                self.plan(part, rule, part.rules.get(rule_id), None)

    def _settle_changed(self, part: Part, rule: Rule, state: RuleState, at: int) -> None:
        now = state._replace(version=rule.version)
        scope = Scope(part, at)
        if state.state == "idle":
            self._set(part, rule, now, at, "rule-changed")
            if rule.when is not None and not rule.events and self._is_true(part, rule, scope):
                self._start(part, rule, at, at + part.offset, "rule-changed")
            return
        if rule.events or rule.silence_ms is not None:
            still = rule.silence_ms is not None or any(part.active(fault) for fault in rule.events)
        elif state.state == "firing":
            still = _is_over(rule, scope) is not True
        else:
            still = self._is_true(part, rule, scope) is not False
        if still:
            self._set(part, rule, now, at, "rule-changed")
        elif state.state == "firing":
            self.end(part, rule, now, at, "rule-changed")
        else:
            self._set(part, rule, now._replace(state="idle", since=at, changed=at), at, "rule-changed")

    # --- when to look again --------------------------------------------------------------------------------------

    def plan(self, part: Part, rule: Rule, state: RuleState | None, scope: Scope | None) -> None:
        """Sets the next instant at which the rule must be looked at although nothing comes."""
        instants = list(_deadlines(rule, state))
        if rule.id in part.device.pack.waking:
            scope = scope or Scope(part, max(part.watermark, state.changed if state is not None else 0))
            instants += _wakes(part, rule, state, scope)
            if rule.id in part.device.pack.slow:
                step_ms = part.device.pack.slow[rule.id]
                instants.append((scope.now // step_ms + 1) * step_ms)
        if instants:
            part.plan(rule.id, min(instants))
            self._arm(part)
        else:
            part.plan(rule.id, NEVER_MS if rule.id in part.device.pack.soonest else None)

    def begin(self, part: Part, scope: Scope, rx: int) -> None:
        """Rules that no report makes us look at: the first time they are looked at, or planned, here."""
        pack = part.device.pack
        for rule_id in (*pack.slow, *pack.unprompted):
            rule = pack.rules[rule_id]
            if rule.part == part.type and rule_id in pack.slow:
                self.plan(part, rule, part.rules.get(rule_id), None)
            elif rule.part == part.type:
                self.look(part, rule, scope, rx)

    def _set(self, part: Part, rule: Rule, state: RuleState, at: int, reason: str = "") -> None:
        state = state._replace(version=rule.version)
        part.rules[rule.id] = state
        self._emit(Change(rule.finding, state, "none", at, reason=reason))
        self.plan(part, rule, state, None)


def _is_over(rule: Rule, scope: Scope) -> bool | None:
    """A firing rule ends by its own `clear`, else when its condition is false. Unknown changes nothing."""
    if rule.clear is not None:
        return rule.clear.evaluate(scope)
    if rule.when is None:
        return None
    if rule.schedule is not None and not rule.schedule.covers(scope.now, scope.zone):
        return True
    true = rule.when.evaluate(scope)
    return None if true is None else not true


def _muted(part: Part, rule: Rule, scope: Scope) -> bool:
    if not rule.mute_in or scope.field(MODE) not in rule.mute_in:
        return False
    since = part.device.parts[""].mode_since
    return not rule.mute_cap_ms or scope.now < since + rule.mute_cap_ms


def _fired(rule: Rule, state: RuleState, at: int) -> tuple[RuleState, str]:
    """The state of a rule that fires, and "unstable" when it does so too often."""
    memo = {**without(state.memo, "clearing"), "group": rule.finding.group, "close": rule.finding.close}
    news = ""
    if rule.flap is not None and state.state != "firing":
        flips = [flip for flip in memo.get("flips", ()) if flip > at - rule.flap.within_ms]
        memo["flips"] = [*flips, at]
        if len(flips) >= rule.flap.changes:
            memo["unstable"], news = True, "unstable"
    return state._replace(state="firing", changed=at, version=rule.version, memo=memo), news


def _waits(rule: Rule, state: RuleState) -> tuple[int, int]:
    """(`clear_for`, `keep_firing_for`) in ms. An unstable rule must be quiet for its whole flapping time."""
    if state.memo.get("unstable") and rule.flap is not None:
        return 0, max(rule.keep_ms, rule.flap.within_ms)
    return rule.clear_for_ms, rule.keep_ms


def _over_at(rule: Rule, state: RuleState) -> int | None:
    clearing = state.memo.get("clearing")
    return None if clearing is None else clearing + sum(_waits(rule, state))


def _deadlines(rule: Rule, state: RuleState | None) -> Iterator[int]:
    if state is None:
        return
    if state.state == "pending":
        yield state.since + (rule.within_ms if rule.events else rule.for_ms)
    elif state.state == "firing" and (over := _over_at(rule, state)) is not None:
        yield over


def _wakes(part: Part, rule: Rule, state: RuleState | None, scope: Scope) -> Iterator[int]:
    """Instants after `scope.now` at which the verdict may be another one without any news."""
    firing = state is not None and state.state in ("firing", "held")
    if rule.id not in part.device.pack.slow:
        guarded = not firing and (state is None or state.state == "idle") and _is_guarded(rule, scope)
        for condition in (None if guarded else rule.when, rule.clear if firing else None):
            if condition is not None and condition.wakes is not None and (wake := condition.wakes(scope)) is not None:
                yield wake
    if rule.schedule is not None and (edge := rule.schedule.next_edge(scope.now, scope.zone)) is not None:
        yield edge
    if not firing and rule.mute_in and _muted(part, rule, scope):
        device = part.device.parts[""]
        if rule.mute_cap_ms:
            yield device.mode_since + rule.mute_cap_ms
        yield device.values[MODE][1] + part.device.pack.stale_ms[MODE] + 1


def _is_guarded(rule: Rule, scope: Scope) -> bool:
    """Whether time alone cannot make the rule true: something that only a report can change says no."""
    guard = rule.when.guard if rule.when is not None else None
    return guard is not None and guard(scope) is False


def _firing_groups(part: Part) -> set[str]:
    rules = part.device.pack.rules
    return {rules[s.rule_id].finding.group for s in part.rules.values() if s.state == "firing" and s.rule_id in rules}


def finding_of(state: RuleState) -> Finding:
    """What is known of a rule that is gone."""
    nothing = Words("", "")
    close = state.memo.get("close", "person")
    return Finding(state.rule_id, state.memo.get("group", ""), Severity.P4, nothing, nothing, close, needs_clear=False)


def without(memo: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The memo of a rule's state, but for one thing."""
    return {key: value for key, value in memo.items() if key != name}
