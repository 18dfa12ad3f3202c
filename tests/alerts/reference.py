"""What rules mean, once more: slow, obvious, and written from docs/rules.md alone.

Nothing is remembered between two questions. The whole history of one device is there as a list; every question about a
value, a window or a fault looks through that list, and where a rule stands is found by going through all instants
again from the start. Conditions are Python functions of what can be seen at an instant, so no compiler is trusted.

Instants are Unix ms on the device's clock. At each instant time passes first, then what was said at it is taken in. So
`for` that is over at the very instant of a false sample has fired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from core.reading import Value

STALE_MS = 600_000
"""So long a value is known: docs/rules.md, the words. Fields with another time are not used here."""

Truth = bool | None


class Said(NamedTuple):
    """One message of a device: fields of some of its parts at one instant, or an event."""

    ts: int
    number: int
    parts: Mapping[str, Mapping[str, Value]] = {}
    """By part ("" is the device itself)."""
    part: str = ""
    """Of the event."""
    fault: str = ""
    """Empty: no event."""
    raised: bool = True
    id: str = ""


class Line(NamedTuple):
    """What became of an incident. Sorts by time."""

    at: int
    part: str
    rule: str
    effect: str
    severity: str = ""
    """How urgent the incident is now; of `raise` and `ease`."""


class View(NamedTuple):
    """What can be seen of one part at one instant. `story`: all that was said until then."""

    story: Sequence[Said]
    part: str
    at: int
    part_fields: frozenset[str]
    """Fields that ports have: a port never looks at the pile's of the same name."""

    def reports(self, field: str, part: str | None = None) -> list[tuple[int, Value]]:
        """Every report of a field (ts, value), oldest first."""
        owner = self.part if part is None else part
        if owner and field not in self.part_fields:
            owner = ""
        return [(said.ts, said.parts[owner][field]) for said in self.story if field in said.parts.get(owner, {})]

    def value(self, field: str, part: str | None = None) -> Value | None:
        """Its newest value; None: unknown."""
        reports = self.reports(field, part)
        return reports[-1][1] if reports and self.at - reports[-1][0] <= STALE_MS else None

    def number(self, field: str) -> float | None:
        """Its value, of a field that is a number."""
        value = self.value(field)
        return None if value is None else float(value)

    def age_ms(self, field: str) -> int | None:
        """Since its newest report."""
        reports = self.reports(field)
        return self.at - reports[-1][0] if reports else None

    def window(self, field: str, length_ms: int) -> list[float]:
        """The samples in (at - length, at]; of two at one instant the newer."""
        newest = dict(self.reports(field))
        return [float(value) for ts, value in sorted(newest.items()) if ts > self.at - length_ms]

    def became(self, condition: Callable[[View], Truth], field: str, length_ms: int) -> int:
        """How often the condition became true in (at - length, at], as reports of the field show."""
        known, count = False, 0
        for index, said in enumerate(self.story):
            if field not in said.parts.get(self.part, {}):
                continue
            true = condition(self._replace(story=self.story[: index + 1], at=said.ts))
            if true and not known and said.ts > self.at - length_ms:
                count += 1
            known = known if true is None else true
        return count

    def neighbours(self, field: str) -> list[float]:
        """Known values on the other ports."""
        others = sorted({part for said in self.story for part in said.parts if part not in ("", self.part)})
        return [float(value) for part in others if (value := self.value(field, part)) is not None]

    def active(self, fault: str) -> bool:
        """Raised and not cleared."""
        events = [said for said in self.story if said.fault == fault and said.part == self.part]
        return bool(events) and events[-1].raised

    def since(self, field: str) -> int:
        """Since when the device's field has had its present value without a gap of not knowing it."""
        begun, before = 0, None
        for ts, value in self.reports(field, ""):
            if before is None or before[1] != value or ts - before[0] > STALE_MS:
                begun = ts
            before = (ts, value)
        return begun


Condition = Callable[[View], Truth]


class Ref(NamedTuple):
    """A rule as the reference knows it. What the keys mean: docs/rules.md."""

    id: str
    group: str
    severity: str
    when: Condition | None = None
    fields: frozenset[str] = frozenset()
    """All that its conditions name, `service_mode` of `mute_in` too."""
    faults: frozenset[str] = frozenset()
    """Of `active(...)` in its conditions."""
    plain: bool = True
    """False: every report of its fields counts, and not only another value."""
    edges: frozenset[int] = frozenset()
    """Durations in its conditions: so long after a report, or a millisecond more, its verdict can change."""
    pace_ms: int = 0
    """Of windows: while reports stay away it is looked at that often, counted from the part's last snapshot."""
    moments: frozenset[int] = frozenset()
    """Instants at which its schedule begins or ends."""
    on_port: bool = False
    events: frozenset[str] = frozenset()
    within_ms: int = 0
    for_ms: int = 0
    clear: Condition | None = None
    clear_for_ms: int = 0
    keep_ms: int = 0
    flap: tuple[int, int] | None = None
    """(changes, within ms)."""
    inhibited_by: frozenset[str] = frozenset()
    mute_in: frozenset[str] = frozenset()
    mute_cap_ms: int = 4 * 3_600_000
    open_at: Callable[[int], bool] = lambda _: True
    """Its schedule."""

    def muted(self, view: View) -> bool:
        if not self.mute_in or view.value("service_mode", "") not in self.mute_in:
            return False
        return not self.mute_cap_ms or view.at < view.since("service_mode") + self.mute_cap_ms

    def may_start(self, view: View) -> Truth:
        """Outside its schedule and where it is muted a condition counts as false."""
        assert self.when is not None
        if not self.open_at(view.at):
            return False
        true = self.when(view)
        return False if true and self.muted(view) else true

    def is_over(self, view: View) -> Truth:
        if self.clear is not None:
            return self.clear(view)
        if self.when is None:
            return None
        if not self.open_at(view.at):
            return True
        true = self.when(view)
        return None if true is None else not true


class Stand:
    """Where one rule stands on one part while we go through the instants."""

    def __init__(self, rule: Ref, part: str) -> None:
        self.rule, self.part = rule, part
        self.state = "idle"
        self.since = 0
        self.fired = 0
        self.clearing: int | None = None
        self.flips: list[int] = []
        self.unstable = False

    @property
    def waits(self) -> tuple[int, int]:
        """(`clear_for`, `keep_firing_for`): a rule that flaps must be quiet for its whole flapping time."""
        if self.unstable and self.rule.flap:
            return 0, max(self.rule.keep_ms, self.rule.flap[1])
        return self.rule.clear_for_ms, self.rule.keep_ms

    @property
    def deadline(self) -> int | None:
        """When time alone moves it on."""
        if self.state == "pending":
            return self.since + (self.rule.within_ms if self.rule.events else self.rule.for_ms)
        return self.clearing + sum(self.waits) if self.state == "firing" and self.clearing is not None else None


class Walk:
    """Goes through the instants of one device, and writes down the lines."""

    def __init__(self, rules: Sequence[Ref], part_fields: frozenset[str], story: Sequence[Said]) -> None:
        self.rules, self.part_fields, self.all = rules, part_fields, story
        self.heard: list[Said] = []
        self.stands: dict[tuple[str, str], Stand] = {}
        self.lines: list[Line] = []

    def until(self, end: int) -> list[Line]:
        edges = {edge + extra for rule in self.rules for edge in rule.edges for extra in (0, 1)}
        edges |= {STALE_MS, STALE_MS + 1} | {rule.mute_cap_ms for rule in self.rules}
        fixed = {said.ts + edge for said in self.all for edge in edges | {0}}
        fixed |= {moment for rule in self.rules for moment in rule.moments}
        for rule in self.rules:
            steps = range(rule.pace_ms, 2 * max(rule.edges), rule.pace_ms) if rule.pace_ms else ()
            fixed |= {said.ts + step for said in self.all for step in steps}
        now = -1
        while True:
            deadlines = [one.deadline for one in self.stands.values() if one.deadline is not None]
            later = [at for at in (*fixed, *deadlines) if at > now and at <= end]
            if not later:
                return self.lines
            now = min(later)
            self.time_passes(now)
            for said in self.all:
                if said.ts == now:
                    self.hear(said)

    # --- what happens at an instant ------------------------------------------------------------------------------

    def time_passes(self, at: int) -> None:
        for stand in self.in_order():
            if stand.deadline is not None and stand.deadline <= at:
                self.deadline(stand, at)
            before, now = self.view(stand.part, at - 1), self.view(stand.part, at)
            timely = not stand.rule.plain and self.is_in_step(stand, at)
            if not stand.rule.events and (timely or stand.rule.muted(before) != stand.rule.muted(now)):
                self.look(stand, at)
        self.lift(at)

    def is_in_step(self, stand: Stand, at: int) -> bool:
        snapshots = [said.ts for said in self.heard if stand.part in said.parts]
        return not stand.rule.pace_ms or (bool(snapshots) and (at - snapshots[-1]) % stand.rule.pace_ms == 0)

    def hear(self, said: Said) -> None:
        before = list(self.heard)
        self.heard.append(said)
        for part in {"": 0, said.part: 0, **said.parts}:
            for rule in self.rules:
                if rule.on_port == bool(part):
                    self.stands.setdefault((part, rule.id), Stand(rule, part))
        waiting = [one for one in self.in_order() if said.fault in one.rule.events and one.part == said.part]
        for stand in waiting:
            self.event(stand, said)
        for stand in self.in_order():
            if stand not in waiting and self.is_asked(stand, said, before):
                self.look(stand, said.ts)
        self.lift(said.ts)

    def is_asked(self, stand: Stand, said: Said, before: Sequence[Said]) -> bool:
        """Whether the message says something that the rule looks at: another value, or for windows any report."""
        if said.fault:
            return said.fault in stand.rule.faults and said.part == stand.part
        old, new = self.view(stand.part, said.ts)._replace(story=before), self.view(stand.part, said.ts)
        for field in stand.rule.fields:
            if len(new.reports(field)) > len(old.reports(field)):
                if not stand.rule.plain or old.value(field) != new.value(field):
                    return True
            elif not stand.rule.plain and any(field in fields for part, fields in said.parts.items() if part):
                return True  # a neighbour's
        return False

    def look(self, stand: Stand, at: int) -> None:
        rule, view = stand.rule, self.view(stand.part, at)
        if rule.when is None:
            return
        if stand.state == "firing":
            if not rule.events:
                self.look_for_end(stand, view)
        elif stand.state == "held":
            if not rule.events and rule.is_over(view):
                stand.state = "idle"
        elif rule.events:
            if stand.state == "pending" and rule.may_start(view):
                self.fire(stand, at)
        elif stand.state == "idle":
            if rule.may_start(view):
                stand.state, stand.since = "pending", at
                if not rule.for_ms:
                    self.fire(stand, at)
        elif rule.may_start(view) is False:
            stand.state = "idle"

    def look_for_end(self, stand: Stand, view: View) -> None:
        over = stand.rule.is_over(view)
        if stand.clearing is None:
            if over:
                stand.clearing = view.at
                if not sum(stand.waits):
                    self.end(stand, view.at)
        elif over is False and (view.at < stand.clearing + stand.waits[0] or stand.rule.may_start(view)):
            stand.clearing = None

    def event(self, stand: Stand, said: Said) -> None:
        rule = stand.rule
        if said.raised:
            view = self.view(stand.part, said.ts)
            if not rule.muted(view) if rule.when is None else rule.may_start(view):
                stand.clearing = None
                self.fire(stand, said.ts)
            elif rule.within_ms and stand.state in ("idle", "pending"):
                stand.state, stand.since = "pending", said.ts
        elif stand.state in ("pending", "held"):
            stand.state = "idle"
        elif stand.state == "firing" and not any(self.view(stand.part, said.ts).active(one) for one in rule.events):
            stand.clearing = said.ts if stand.clearing is None else stand.clearing
            if not sum(stand.waits):
                self.end(stand, said.ts)

    def deadline(self, stand: Stand, at: int) -> None:
        if stand.state == "firing":
            self.end(stand, at)
        elif stand.rule.events:
            stand.state = "idle"
        else:
            self.fire(stand, at)

    # --- firing and ending ---------------------------------------------------------------------------------------

    def fire(self, stand: Stand, at: int) -> None:
        if stand.state != "firing":
            if self.is_held(stand):
                stand.state = "held"
                return
            stand.flips = [*stand.flips, at]
            if stand.rule.flap:
                changes, within_ms = stand.rule.flap
                stand.unstable = sum(flip > at - within_ms for flip in stand.flips) > changes
        stand.state, stand.fired, stand.clearing = "firing", at, None
        self.lines.append(Line(at, stand.part, stand.rule.id, "raise", self.urgency(stand) or ""))

    def end(self, stand: Stand, at: int) -> None:
        before = self.urgency(stand)
        if stand.unstable:
            stand.flips = []
        stand.state, stand.clearing, stand.unstable = "idle", None, False
        left = self.urgency(stand)
        if left is None:
            self.lines.append(Line(at, stand.part, stand.rule.id, "clear"))
        elif left != before:
            self.lines.append(Line(at, stand.part, stand.rule.id, "ease", left))

    def lift(self, at: int) -> None:
        """Held rules that nothing holds back any more fire, if they are still true."""
        for stand in self.in_order():
            if stand.state == "held" and not self.is_held(stand):
                if not stand.rule.events and stand.rule.is_over(self.view(stand.part, at)):
                    stand.state = "idle"
                else:
                    self.fire(stand, at)

    def is_held(self, stand: Stand) -> bool:
        return any(
            other.state == "firing" and other.part in ("", stand.part) and other.rule.group in stand.rule.inhibited_by
            for other in self.stands.values()
        )

    def urgency(self, stand: Stand) -> str | None:
        """Of the incident that this rule belongs to; None: there is none."""
        group = (stand.part, stand.rule.group)
        firing = [one for one in self.stands.values() if one.state == "firing" and (one.part, one.rule.group) == group]
        return min((one.rule.severity for one in firing), default=None)

    def in_order(self) -> list[Stand]:
        """The device before its ports; what inhibits before what it inhibits, as the rules are given."""
        order = [rule.id for rule in self.rules]
        return sorted(self.stands.values(), key=lambda one: (one.part, order.index(one.rule.id)))

    def view(self, part: str, at: int) -> View:
        return View(tuple(self.heard), part, at, self.part_fields)


def lines(rules: Sequence[Ref], history: Iterable[Said], end: int, part_fields: frozenset[str]) -> list[Line]:
    """What becomes of the incidents of one device, until `end`.

    `history`: whatever was said, in any order, also several times: what counts is when it was said. `rules`: what
    inhibits first.
    """
    once = {said.number: said for said in history}
    story = sorted(once.values(), key=lambda said: (said.ts, said.number))
    return Walk(rules, part_fields, story).until(end)
