"""Lives through the engine, and what its incidents have to do with what really happened."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from alerts.engine import Engine
from alerts.rulebook import RuleBook
from core.faults import Severity
from core.incident import Change
from core.payload import decode
from core.reading import Batch
from simulators.plan import Planned
from tests.detection.life import START_MS, Life

AFTERMATH_MS: Final = 600_000
"""What is told so soon after a fault ended still belongs to it."""

SLACK_MS: Final = 30_000
"""A report that was lost delays what it would have told until the next."""


REAL: Final = frozenset({"occupied"})
"""Groups whose incidents are always about something real: virtual bikes do stay on full ports overnight."""


class Incident(NamedTuple):
    """A group of rules began to fire on a device."""

    device_id: str
    group: str
    rule_id: str
    severity: Severity
    at: int


class Hit(NamedTuple):
    """A fault, the group that must tell of it, and how soon it did; None: never."""

    fault: str
    told_s: float
    """So soon it should be told."""
    group: str
    delay_ms: int | None

    @property
    def in_time(self) -> bool:
        """Told within its time."""
        return self.delay_ms is not None and self.delay_ms <= self.told_s * 1_000 + SLACK_MS


@dataclass
class Verdict:
    """What came of some lives."""

    hits: list[Hit] = field(default_factory=list)
    wrong: list[Incident] = field(default_factory=list)
    """Incidents that nothing real explains."""
    right: Counter[str] = field(default_factory=Counter)
    """Incidents that something real explains, by group."""
    messages: int = 0
    device_ms: Counter[str] = field(default_factory=Counter)
    """By kind."""

    def add(self, other: Verdict) -> None:
        """Takes another verdict in."""
        self.hits += other.hits
        self.wrong += other.wrong
        self.right += other.right
        self.messages += other.messages
        self.device_ms += other.device_ms


def live(lives: Sequence[Life], book: RuleBook, length_ms: int) -> Verdict:
    """Lives side by side in one engine."""
    engine = Engine(book)
    engine.listening(True, now=START_MS)
    for one in lives:
        engine.know_device(one.device.device_id, one.device.kind, dict(one.device.statics), now=START_MS)
    changes: list[Change] = []
    messages = 0
    for said in heapq.merge(*(one.messages(length_ms) for one in lives), key=lambda one: one.now):
        changes += engine.advance(said.now)
        if said.payload:
            message = decode(said.topic, said.payload, said.now)
            changes += engine.observe(Batch((*message.readings, *message.events)))
            messages += 1
    changes += engine.advance(START_MS + length_ms)
    assert not engine.troubles, engine.troubles
    return _verdict(lives, _incidents(changes), messages, length_ms, _groups(book))


def _groups(book: RuleBook) -> dict[str, str]:
    """The fault group that tells of a code, by the fault behind it: the most urgent of those that wait for it."""
    found: dict[str, tuple[Severity, str]] = {}
    for rule in book:
        for fault in rule.events:
            mine = (rule.finding.severity, rule.finding.group)
            if rule.when is None:
                found[fault] = min(mine, found.get(fault, mine))
    return {fault: group for fault, (_, group) in found.items()}


def _incidents(changes: Sequence[Change]) -> list[Incident]:
    """Each time a group begins to fire on a part."""
    found: list[Incident] = []
    open_now: set[tuple[str, str, str]] = set()
    for change in changes:
        key = (change.state.device_id, change.state.part, change.finding.group)
        if change.effect == "clear":
            open_now.discard(key)
        elif change.effect == "raise":
            severity = change.severity or change.finding.severity
            if key not in open_now:
                found.append(Incident(key[0], key[2], change.finding.rule_id, severity, change.at))
            open_now.add(key)
    return found


def _verdict(
    lives: Sequence[Life], incidents: Sequence[Incident], messages: int, length_ms: int, of_code: Mapping[str, str]
) -> Verdict:
    verdict = Verdict(messages=messages)
    plan = [planned for one in lives for planned in one.plan]
    for planned in plan:
        group = planned.fault.group or of_code.get(planned.fault.truth or "", "")
        if group and planned.start_ms + planned.fault.told_s * 1_000 < length_ms:
            told = [one.at - START_MS - planned.start_ms for one in incidents if _tells(one, planned, {group})]
            verdict.hits.append(Hit(planned.fault.name, planned.fault.told_s, group, min(told, default=None)))
    for one in incidents:
        if one.group in REAL or any(_tells(one, planned, _groups_of(planned, of_code)) for planned in plan):
            verdict.right[one.group] += 1
        else:
            verdict.wrong.append(one)
    verdict.device_ms.update({kind: length_ms * count for kind, count in Counter(_kinds(lives)).items()})
    return verdict


def _kinds(lives: Sequence[Life]) -> list[str]:
    return [one.device.kind for one in lives]


def _groups_of(planned: Planned, of_code: Mapping[str, str]) -> Collection[str]:
    fault = planned.fault
    return {fault.group or of_code.get(fault.truth or "", ""), *fault.also}


def _tells(one: Incident, planned: Planned, groups: Collection[str]) -> bool:
    """Whether an incident is about this fault. The incident of a whole site is about each device that fell silent."""
    end_ms = planned.end_ms if planned.end_ms is not None else 10**15
    its = one.device_id == planned.device.device_id and one.group in groups
    of_site = one.device_id == f"{planned.device.site}.*" and planned.fault.silent
    return (its or of_site) and planned.start_ms <= one.at - START_MS <= end_ms + AFTERMATH_MS
