"""Samples that overtook others: put in their place, and everything since judged again.

A device that numbers its messages tells us when some are missing. From such a gap on, what its parts were before it is
kept aside, with all that came since. A message that belongs into the gap is put where it belongs by device time, the
rules are judged again from there, and what comes out differently is told. So a reordered delivery ends where an orderly
one would. A gap is given up when it is filled, after fifteen minutes of device time, or after a thousand messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from alerts.memory import Device, Part
from core.incident import Change, RuleState
from core.reading import Event, Reading

LONGEST_MS: Final = 15 * 60_000
MOST_MESSAGES: Final = 1_000
WIDEST: Final = 10_000
"""A jump by more numbers than this is another numbering, and not a gap."""

Message = tuple[Reading | Event, ...]
"""Readings of one snapshot, or one event."""

Groups = dict[tuple[str, str], dict[str, int]]
"""Open incidents by (part, fault group): the rules that were told of, and when they fired."""


@dataclass(slots=True)
class Gap:
    """Numbers that did not come yet."""

    base: dict[str, Part]
    opened: int
    missing: set[int]
    since: list[Message] = field(default_factory=list)
    decided: list[Change] = field(default_factory=list)
    """What came out since then, as judged last."""
    said: dict[tuple[str, str], RuleState] = field(default_factory=dict)
    """Where each (part, rule) stands, as it was told."""
    groups: Groups = field(default_factory=dict)
    """Incidents that are open, as it was told."""
    ran_to: dict[str, int] = field(default_factory=dict)
    """Device time up to which timers were run, by part."""

    def follow(self, change: Change) -> None:
        """Takes note of what was told."""
        group = (change.state.part, change.finding.group)
        self.said[change.state.part, change.state.rule_id] = change.state
        if change.effect == "clear":
            self.groups.pop(group, None)
        elif change.effect == "raise":
            self.groups.setdefault(group, {})[change.state.rule_id] = change.at

    def is_hopeless(self, now: int) -> bool:
        return now - self.opened > LONGEST_MS or len(self.since) > MOST_MESSAGES


def fills(device: Device, item: Reading | Event) -> bool:
    """Whether this is one of the numbers that are missing."""
    return device.gap is not None and item.seq in device.gap.missing


def in_order(messages: Iterable[Message]) -> list[Message]:
    """By device time; at one instant by number."""
    return sorted(messages, key=lambda one: (one[0].ts, one[0].seq or 0))


def copied(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Parts as they are now. Kept samples are shared: they are sorted by time, whenever they come."""
    return {name: _copy(part) for name, part in parts.items()}


def _copy(part: Part) -> Part:
    return replace(
        part,
        values=part.values.copy(),
        faults=part.faults.copy(),
        rules=part.rules.copy(),
        due=part.due.copy(),
        counted=part.counted.copy(),
        behind=part.behind[:],
    )


def corrections(device: Device, gap: Gap, anew: Sequence[Change]) -> list[Change]:
    """What must be told now that the rules were judged again: news, and what takes back what was told before."""
    known = {_key(change) for change in gap.decided}
    news: list[Change] = []
    for change in anew:
        if _key(change) not in known:
            fitted = _fitted(change, gap.groups)
            gap.follow(fitted)
            news.append(fitted)
    gap.decided = list(anew)
    return news + _taken_back(device, gap)


def _fitted(change: Change, groups: Groups) -> Change:
    """The change as it can be told after all that was told: nothing opens or ends twice, or ends before it began."""
    group, at, effect = (change.state.part, change.finding.group), change.at, change.effect
    told = groups.get(group, {})
    if effect in ("clear", "ease"):
        at, effect = max(at, *told.values(), 0), effect if told else "none"
    elif effect == "raise" and change.state.rule_id in told and "event" not in change.evidence:
        effect = "none"
    return change._replace(at=at, effect=effect, reason=change.reason or "late-data")


def _taken_back(device: Device, gap: Gap) -> list[Change]:
    """Rules that stand elsewhere than what was told of them, and incidents that are open or closed by mistake."""
    found: list[Change] = []
    groups, now_open = gap.groups, open_groups(device)
    for (part_name, rule_id), state in gap.said.items():
        part, rule = device.part(part_name), device.pack.rules.get(rule_id)
        if rule is None:
            continue
        held = part.rules.get(rule_id) or state._replace(state="idle", memo={})
        part.rules[rule_id] = gap.said[part_name, rule_id] = held
        group = (part_name, rule.finding.group)
        if held.state == "firing" and group not in groups:
            groups[group] = {rule_id: held.changed}
            found.append(Change(rule.finding, held, "raise", held.changed, reason="late-data"))
        elif group in groups and group not in now_open:
            at = max(held.changed, *groups.pop(group).values())
            found.append(Change(rule.finding, held, "clear", at, reason="late-data"))
        elif held != state:
            found.append(Change(rule.finding, held, "none", held.changed, reason="late-data"))
    return found


def open_groups(device: Device) -> Groups:
    """Incidents of the device that are open now."""
    rules = device.pack.rules
    found: Groups = {}
    for part in device.parts.values():
        for state in part.rules.values():
            if state.state == "firing" and state.rule_id in rules:
                group = (part.name, rules[state.rule_id].finding.group)
                found.setdefault(group, {})[state.rule_id] = state.changed
    return found


def _key(change: Change) -> tuple[object, ...]:
    state = change.state
    return state.part, state.rule_id, state.state, state.since, change.effect, change.at
