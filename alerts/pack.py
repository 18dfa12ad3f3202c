"""The rules of one device, sorted for use: who looks at a field, who waits for a fault, which samples are kept.

Devices with equal parameters share one pack, so it is made once for most of a fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from alerts.condition import Condition, Series
from alerts.rules import Rule
from core.kinds import all_fields, part_fields

SETS_REMEMBERED: Final = 10_000
"""Sets of fields whose rules are kept at hand."""

PACE: Final = 10
SHORTEST_PACE_MS: Final = 1_000
"""When reports stay away, a window is looked at every tenth of its length, but not more often than this."""

MODE: Final = "service_mode"

Names = tuple[str, ...]


class Pack:
    """Rules in the order in which they are judged: what inhibits comes before what it inhibits, else as written."""

    def __init__(self, kind: str, rules: Sequence[Rule]) -> None:
        self.kind = kind
        self.source = rules
        self.rules = {rule.id: rule for rule in in_order(rules)}
        self.rank = {rule_id: index for index, rule_id in enumerate(self.rules)}
        self.silence = tuple(rule for rule in self.rules.values() if rule.silence_ms is not None)
        self.listening = tuple(r for r in self.rules.values() if any("absent(" in one.text for one in conditions(r)))
        """Rules that look at whether the device says anything at all."""
        self.inhibiting = frozenset(group for rule in self.rules.values() for group in rule.inhibited_by)
        restless = [r for r in self.rules.values() if r.when and not r.events and not r.plain]
        self.slow = {r.id: step for r in restless if (step := _slow_step_ms(r))}
        """Rules with a window over ten minutes, and how often they are looked at: at whole multiples of so many ms."""
        self.pace = {r.id: pace for r in restless if r.id not in self.slow and (pace := _pace_ms(r))}
        """Rules with a window, and how often they are looked at when reports stay away."""
        self.soonest = {r.id: _soonest_ms(r) for r in restless if r.id not in self.slow}
        """Rules that time alone can change, and how long after a report that is at the earliest."""
        self.unprompted = tuple(r.id for r in restless if not r.watched and r.id not in self.slow)
        """Rules that look at the calendar only, or at whether anything was said at all."""
        self.simple = frozenset(r.id for r in self.rules.values() if r.when and not r.events and r.plain)
        """Rules that only a value can change."""
        muted = (rule.id for rule in self.rules.values() if rule.mute_in and rule.when and not rule.events)
        self.waking = frozenset(r.id for r in restless).union(muted)
        """Rules that time alone can change, for example because a service mode holds them back for some time only."""
        self.mutes = any(rule.mute_in for rule in self.rules.values())
        self.part_fields = part_fields(kind).keys()
        self.stale_ms = {name: spec.stale_ms for name, spec in all_fields(kind).items() if name in self._looked_at()}
        """Fields that some rule looks at, with the time after which their value is unknown."""
        series = merged(one for rule in self.rules.values() for one in rule_series(rule))
        self.series: dict[str | None, tuple[Series, ...]] = {}
        for one in series:
            self.series[one.field] = (*self.series.get(one.field, ()), one)
        """Samples to keep, by field. Under None: conditions whose becoming true is counted."""
        self.timed = frozenset(
            name for rule in self.rules.values() if not rule.plain for name in rule.watched
        ) | frozenset(name for name in self.series if name is not None)
        """Fields of which every report matters, and not only a new value: windows, ages, neighbours."""
        self.siblings = frozenset(
            name for rule in self.rules.values() for condition in conditions(rule) for name in condition.siblings
        )
        self._by_fault: dict[str, list[Rule]] = {}
        for rule in self.rules.values():
            for fault in rule.events:
                self._by_fault.setdefault(fault, []).append(rule)
        self._to_judge: dict[tuple[str, Names, Names], tuple[tuple[Rule, ...], tuple[Rule, ...]]] = {}
        self._comparing: dict[frozenset[str], tuple[Rule, ...]] = {}
        """By fields: there are as many as sets of the few fields that rules compare."""

    def raised_by(self, fault: str) -> Sequence[Rule]:
        """Rules that wait for this fault."""
        return self._by_fault.get(fault, ())

    def to_judge(self, part: str, changed: Names, reported: Names) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
        """Rules of a "device" or "port" that must look at a value that changed, or at any report of a timed field;
        and rules that such a report can only end.

        Devices send the same few sets of fields for ever, so the answers are kept.
        """
        found = self._to_judge.get((part, changed, reported))
        if found is None:
            if len(self._to_judge) > SETS_REMEMBERED:
                self._to_judge.clear()
            rules = [r for r in self.rules.values() if r.part == part and r.when and r.id not in self.slow]
            looking = tuple(rule for rule in rules if _looks(rule, changed, reported))
            ending = (rule for rule in rules if rule not in looking and rule.id in self.soonest)
            found = looking, tuple(rule for rule in ending if not rule.watched.isdisjoint(reported))
            self._to_judge[part, changed, reported] = found
        return found

    def comparing(self, names: frozenset[str]) -> tuple[Rule, ...]:
        """Rules that compare these fields of a port with its neighbours'."""
        found = self._comparing.get(names)
        if found is None:
            rules = self.rules.values()
            found = tuple(r for r in rules if any(not c.siblings.isdisjoint(names) for c in conditions(r)))
            self._comparing[names] = found
        return found

    def asking(self, part: str, fault: str) -> list[Rule]:
        """Rules of a "device" or "port" whose condition says `active(fault)`."""
        return [rule for rule in self.rules.values() if rule.part == part and fault in rule.watched_faults]

    def _looked_at(self) -> frozenset[str]:
        return frozenset({MODE}.union(*(rule.watched for rule in self.rules.values())))


def conditions(rule: Rule) -> list[Condition]:
    """What the rule evaluates."""
    return [condition for condition in (rule.when, rule.clear) if condition is not None]


def rule_series(rule: Rule) -> list[Series]:
    """The samples that it needs kept."""
    return [one for condition in conditions(rule) for one in condition.series]


def merged(every: Iterable[Series]) -> list[Series]:
    """Series of one key are one series, which reaches back as far as the longest of them."""
    found: dict[str, Series] = {}
    for one in every:
        known = found.get(one.key)
        found[one.key] = one if known is None else known._replace(keep_ms=max(known.keep_ms, one.keep_ms))
    return list(found.values())


def in_order(rules: Sequence[Rule]) -> list[Rule]:
    """What inhibits first, else as written. Rule files with a circle among them are refused."""
    left, done, groups = list(rules), [], {rule.finding.group for rule in rules}
    while left:
        waiting = {rule.finding.group for rule in left}
        ready = [rule for rule in left if not rule.inhibited_by & groups & waiting - {rule.finding.group}]
        assert ready, "rules inhibit each other in a circle"
        done += ready
        left = [rule for rule in left if rule not in ready]
    return done


def _slow_step_ms(rule: Rule) -> int:
    return min((one.step_ms for one in rule_series(rule) if one.step_ms), default=0)


def _pace_ms(rule: Rule) -> int:
    windows = [one.keep_ms for one in rule_series(rule) if one.field is not None]
    return max(min(windows) // PACE, SHORTEST_PACE_MS) if windows else 0


def _soonest_ms(rule: Rule) -> int:
    return min(condition.soonest_ms for condition in conditions(rule))


def _looks(rule: Rule, changed: Names, reported: Names) -> bool:
    if not rule.watched.isdisjoint(changed):
        return True
    fades = all(condition.fades for condition in conditions(rule))
    return not rule.plain and not fades and not rule.watched.isdisjoint(reported)
