"""From what a file says about a rule to the rule, with given values of its parameters."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

from alerts.condition import Condition
from alerts.expression import compile_condition
from alerts.params import Amount
from alerts.rulefile import Length, Node, Place, did_you_mean, unfit
from alerts.rulekeys import Entry, Ladder, Step, a_kind, words_of
from alerts.rules import AT_LEAST, DEADLINE_MS, MUTE_CAP_MS, SITE, Flap, Quorum, Rule
from core.errors import ExpressionError
from core.faults import FAULTS, Severity
from core.incident import Finding, Words
from core.kinds import device_fields, part_fields


def compile_rules(
    entry: Entry, amounts: Mapping[str, Amount], held_by: frozenset[str], place: Place
) -> tuple[Rule, ...]:
    """The rule and the steps of its ladder with these parameters, for use if no flaw was noted down in `place`."""
    maker = _Maker(entry, amounts, place)
    base = _base(entry, maker, held_by)
    rules = [base, *(maker.step(base, step) for step in _ladder(entry).steps)]
    return tuple(_finished(rule, amounts) for rule in rules)


def _ladder(entry: Entry) -> Ladder:
    return entry.got.get("severity") or Ladder(Severity.P4, ())


def _base(entry: Entry, maker: _Maker, held_by: frozenset[str]) -> Rule:
    """The rule without the steps of its ladder; version and what it watches are still empty."""
    got, flap = entry.got, entry.got.get("flap")
    return Rule(
        id=entry.id,
        kind=entry.kind,
        part=entry.part,
        finding=_finding(entry, maker),
        version="",
        when=maker.condition("when", got.get("when")),
        events=maker.events(),
        silence_ms=maker.ms("silence") if "silence" in got else None,
        quorum=Quorum(got.get("share", 1.0), got.get("at_least", AT_LEAST)) if entry.kind == SITE else None,
        for_ms=maker.ms("for"),
        clear=maker.condition("clear", got.get("clear")),
        clear_for_ms=maker.ms("clear_for"),
        keep_ms=maker.ms("keep_firing_for"),
        deadline_ms=maker.ms("deadline", DEADLINE_MS),
        mute_in=maker.modes(),
        mute_cap_ms=maker.ms("mute_cap", MUTE_CAP_MS),
        schedule=got.get("schedule"),
        inhibited_by=held_by,
        flap=Flap(flap["changes"], maker.length_ms("flap.within", flap["within"])) if flap else None,
        watched=frozenset(),
        watched_faults=frozenset(),
        within_ms=maker.ms("within"),
    )


def _finding(entry: Entry, maker: _Maker) -> Finding:
    got = entry.got
    return Finding(
        rule_id=entry.id,
        group=got.get("group", ""),
        severity=_ladder(entry).base,
        title=got.get("title", Words("", "")),
        what_to_do=got.get("what_to_do", Words("", "")),
        close=got.get("close", "person"),
        needs_clear=got.get("needs_clear", False),
        reopen_ms=maker.ms("reopen_within"),
        ticket=got.get("ticket", {}),
    )


class _Maker:
    """Makes values of a rule of what its file says; flaws are noted down."""

    def __init__(self, entry: Entry, amounts: Mapping[str, Amount], place: Place) -> None:
        self._entry = entry
        self._amounts = amounts
        self._params = {name: amount.param for name, amount in amounts.items()}
        self._place = place

    def ms(self, key: str, default: int = 0) -> int:
        """The duration under a key, ms."""
        length: Length | None = self._entry.got.get(key)
        return default if length is None else self.length_ms(key, length)

    def length_ms(self, path: str, length: Length) -> int:
        """A duration, or the parameter that stands for it, ms."""
        if length.ms is not None:
            return length.ms
        place, amount = self._place.at(path), self._amounts.get(length.name)
        if length.name in self._entry.broken_params:
            return 0
        if amount is None:
            hint = did_you_mean(length.name, self._amounts) if self._amounts else ""
            place.flaw(
                length.node.spot, f"'{length.name}' is not a duration like 90s, nor a parameter of this rule{hint}"
            )
        elif amount.kind != "duration":
            place.flaw(length.node.spot, f"'{length.name}' is a {amount.kind}; a duration like 90s is expected here")
        elif (wrong := unfit(float(amount.counts), length.low_ms)) is not None:
            place.flaw(length.node.spot, f"'{length.name}', {amount.written}, is {wrong}")
        else:
            return int(amount.counts)
        return 0

    def condition(self, path: str, node: Node | None) -> Condition | None:
        """A rule of a port sees the port's fields, and the pile's that no port has (`mains`, never `ambient_c`)."""
        if node is None or self._entry.kind == SITE or words_of(node.data) & self._entry.broken_params:
            return None
        kind = self._entry.kind
        ports = part_fields(kind) if self._entry.part == "port" else {}
        faults = frozenset(name for name, fault in FAULTS.items() if fault.kind == kind)
        try:
            return compile_condition(node.data, device_fields(kind) | ports, faults, params=self._params, ports=ports)
        except ExpressionError as error:
            self._place.at(path).flaw(node.spot_in(error.column), error.reason)
            return None

    def events(self) -> frozenset[str]:
        """The faults that it waits for."""
        known = [name for name, fault in FAULTS.items() if fault.kind == self._entry.kind]
        return self._known("event", known, f"no such fault of {a_kind(self._entry.kind)}:")

    def modes(self) -> frozenset[str]:
        """The service modes in which it is mute."""
        spec = None if self._entry.kind == SITE else device_fields(self._entry.kind).get("service_mode")
        return self._known("mute_in", spec.choices if spec else (), f"{a_kind(self._entry.kind)} has no service mode")

    def _known(self, key: str, known: Sequence[str], otherwise: str) -> frozenset[str]:
        nodes: list[Node] = self._entry.got.get(key) or []
        for node in nodes:
            if node.data not in known:
                self._place.at(key).flaw(node.spot, f"{otherwise} {node.data}{did_you_mean(node.data, known)}")
        return frozenset(node.data for node in nodes)

    def step(self, base: Rule, step: Step) -> Rule:
        """A step of the ladder: a rule of the same group with its own condition."""
        rule_id = f"{base.id}.{step.severity.lower()}"
        return base._replace(
            id=rule_id,
            finding=base.finding._replace(rule_id=rule_id, severity=step.severity),
            when=self.condition("severity.when", step.when),
            for_ms=base.for_ms if step.for_ is None else self.length_ms("severity.for", step.for_),
            clear=self.condition("severity.clear", step.clear),
        )


def _finished(rule: Rule, amounts: Mapping[str, Amount]) -> Rule:
    """With what follows from its conditions, and its version."""
    conditions = [one for one in (rule.when, rule.clear) if one is not None]
    return rule._replace(
        version=_version(rule, amounts),
        watched=frozenset({"service_mode"} if rule.mute_in else ()).union(*(one.fields for one in conditions)),
        watched_faults=frozenset().union(*(one.faults for one in conditions)),
    )


def _version(rule: Rule, amounts: Mapping[str, Amount]) -> str:
    finding = rule.finding
    texts = [_one_line(one.text) if one is not None else None for one in (rule.when, rule.clear)]
    used = set().union(*(words_of(one) for one in texts if one))
    decides = [
        *(rule.kind, rule.part, finding.group, finding.severity, finding.close, finding.needs_clear, finding.reopen_ms),
        texts,
        [(name, amount.counts) for name, amount in sorted(amounts.items()) if name in used],
        *(sorted(rule.events), rule.silence_ms, rule.quorum, rule.for_ms, rule.clear_for_ms, rule.keep_ms),
        *(
            rule.deadline_ms,
            sorted(rule.mute_in),
            rule.mute_cap_ms,
            sorted(rule.inhibited_by),
            rule.flap,
            rule.within_ms,
        ),
        sorted((sorted(days), *hours) for days, *hours in rule.schedule.windows) if rule.schedule else None,
    ]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]


def _one_line(text: str) -> str:
    """Line breaks and extra blanks decide nothing, outside of quotes."""
    return " ".join(re.findall(r"(?:\"[^\"]*\"|'[^']*'|[^\s\"'])+", text))
