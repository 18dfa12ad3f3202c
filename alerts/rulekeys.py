"""What a rule file may say: the table of keys, the entry of a rule as it was read, and which keys go together.

How values are read with their places stands in `alerts/rulefile.py`, parameters in `alerts/params.py`. A new key is one
line in the table here, and one in `alerts/rulemaker.py`, where it becomes part of a rule.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from alerts.params import Declared, Override, read_overrides, read_params
from alerts.rulefile import (
    Key,
    Length,
    Node,
    Place,
    Spot,
    choice,
    condition,
    did_you_mean,
    duration,
    flag,
    identifier,
    listed,
    mapping,
    names,
    number,
    read_yaml,
    text,
)
from alerts.rules import SITE
from alerts.schedule import Schedule, parse_schedule
from core.faults import Severity
from core.incident import Words
from core.kinds import KINDS, device_fields, part_fields

MAX_RULES: Final = 1_000
"""In a file, and in all files of a folder together."""

FILE_KEYS: Final = ("kind", "rules", "overrides")
OVERRIDES_FILE: Final = "overrides.yaml"


class Step(NamedTuple):
    """A step of a severity ladder: more urgent as soon as its own condition is true."""

    severity: Severity
    when: Node
    for_: Length | None
    clear: Node | None
    node: Node


class Ladder(NamedTuple):
    """The urgency of a rule and of its steps."""

    base: Severity
    steps: tuple[Step, ...]


def _severity(node: Node, place: Place) -> Ladder | None:
    first, *rest = node.data if isinstance(node.data, list) and node.data else [node]
    base = _LEVEL(first, place)
    steps = []
    for item in rest:
        got = mapping(item, STEP_KEYS, place, "{severity: P1, when: temp_c >= 90}")
        if {"severity", "when"} <= got.keys():
            steps.append(Step(Severity(got["severity"]), got["when"], got.get("for"), got.get("clear"), item))
    if base is None:
        return None
    urgency = Severity(base)
    for step in steps:
        if step.severity >= urgency:
            place.flaw(
                step.node.spot, f"each step must be more urgent than the one before; {step.severity} after {urgency}"
            )
        urgency = step.severity
    return Ladder(Severity(base), tuple(steps))


def _words(limit: int) -> dict[str, Key]:
    return {"zh": Key(text(limit, "端口高温"), required=True), "en": Key(text(limit, "port hot"), required=True)}


def _title(node: Node, place: Place) -> Words | None:
    got = mapping(node, _words(200), place, "{zh: 端口高温, en: port hot}")
    return Words(**got) if len(got) == 2 else None


def _advice(node: Node, place: Place) -> Words | None:
    got = mapping(node, _words(1000), place, "{zh: 断电, en: cut the power}")
    return Words(**got) if len(got) == 2 else None


def _schedule(node: Node, place: Place) -> Schedule | None:
    try:
        return parse_schedule(node.plain())
    except ValueError as error:
        place.flaw(node.spot, str(error))
        return None


def _flap(node: Node, place: Place) -> dict[str, Any] | None:
    got = mapping(node, FLAP_KEYS, place, "{changes: 5, within: 10m}")
    return got if len(got) == len(FLAP_KEYS) else None


def _ticket(node: Node, place: Place) -> dict[str, str] | None:
    return mapping(node, TICKET_KEYS, place, "{service_level: rescue}") or None


def _share(node: Node, place: Place) -> float | None:
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", node.data) if isinstance(node.data, str) else None
    if match is None or not 0 < float(match[1]) <= 100:
        place.flaw(node.spot, f"'{node.written[:40]}' is no share of the devices: above 0% and up to 100%, like 50%")
        return None
    return float(match[1]) / 100


_LEVEL: Final = choice(*Severity)
STEP_KEYS: Final = {
    "severity": Key(_LEVEL, required=True),
    "when": Key(condition, required=True),
    "for": Key(duration()),
    "clear": Key(condition),
}
FLAP_KEYS: Final = {"changes": Key(number(2, 100, "5"), required=True), "within": Key(duration(1000), required=True)}
TICKET_KEYS: Final = {name: Key(text(64, "rescue")) for name in ("service_level", "checklist", "dispatch")}
_SHARED_KEYS: Final = {
    "id": Key(identifier, required=True),
    "enabled": Key(flag),
    "group": Key(identifier, required=True),
    "severity": Key(_severity, required=True),
    "title": Key(_title, required=True),
    "what_to_do": Key(_advice),
    "silence": Key(duration(1000)),
    "clear_for": Key(duration()),
    "close": Key(choice("person", "telemetry")),
    "needs_clear": Key(flag),
    "reopen_within": Key(duration()),
    "ticket": Key(_ticket),
    "params": Key(read_params),
}
RULE_KEYS: Final = _SHARED_KEYS | {
    "part": Key(choice("device", "port")),
    "when": Key(condition),
    "event": Key(names("[smoke]")),
    "within": Key(duration()),
    "for": Key(duration()),
    "clear": Key(condition),
    "keep_firing_for": Key(duration()),
    "deadline": Key(duration(1000)),
    "mute_in": Key(names("[inspection]")),
    "mute_cap": Key(duration()),
    "schedule": Key(_schedule),
    "inhibited_by": Key(names("[offline]")),
    "flap": Key(_flap),
}
SITE_RULE_KEYS: Final = _SHARED_KEYS | {
    "silence": Key(duration(1000), required=True),
    "share": Key(_share, required=True),
    "at_least": Key(number(1, 1_000_000, "3")),
}
_FILE: Final = "{kind: charger, rules: [...]}"
_RULE: Final = "{id: port-hot, group: heat, severity: P1, title: {...}, when: temp_c >= 80}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule as its file says it: the values that could be read, by key."""

    id: str
    kind: str
    node: Node
    place: Place
    got: Mapping[str, Any]

    @property
    def part(self) -> Literal["device", "port"]:
        part: Literal["device", "port"] = self.got.get("part", "device")
        return part

    @property
    def params(self) -> dict[str, Declared]:
        return self.got.get("params") or {}

    @property
    def broken_params(self) -> set[str]:
        """Those that could not be read: told already, and no reason to call their use a mistake as well."""
        node = self.node.data.get("params")
        return node.data.keys() - self.params.keys() if node is not None and isinstance(node.data, dict) else set()

    @property
    def enabled(self) -> bool:
        return bool(self.got.get("enabled", True))

    def spot(self, key: str) -> Spot:
        """Where the value of a key stands, else the rule."""
        node: Node = self.node.data.get(key, self.node)
        return node.spot

    def flaw(self, key: str, text: str) -> None:
        """Something wrong with a key of it."""
        self.place.at(key).flaw(self.spot(key), text)


def read_file(content: str, place: Place, entries: list[Entry], overrides: list[Override]) -> None:
    """Adds what a file says to `entries` and `overrides`."""
    root = read_yaml(content, place)
    if root is None:
        return
    if not isinstance(root.data, dict):
        place.expected(root, "a mapping", _FILE)
        return
    for name in root.data.keys() - FILE_KEYS:
        place.flaw(root.keys[name], f"unknown key '{name}'{did_you_mean(name, FILE_KEYS)}")
    if "overrides" in root.data:
        overrides += read_overrides(root.data["overrides"], place.at("overrides"))
    if place.file == OVERRIDES_FILE and not root.data.keys() & {"kind", "rules"}:
        return
    missing = [key for key in ("kind", "rules") if key not in root.data]
    for key in missing:
        place.flaw(root.spot, f"'{key}' is missing; a file is like {_FILE}")
    if "kind" not in missing and "rules" not in missing:
        _read_rules(root.data["kind"], root.data["rules"], place, entries)


def _read_rules(kind: Node, rules: Node, place: Place, entries: list[Entry]) -> None:
    if kind.data not in (*KINDS, SITE):
        told = kind.data if isinstance(kind.data, str) else kind.what
        place.at("kind").flaw(kind.spot, f"unknown kind '{told}'; known: {', '.join((*KINDS, SITE))}")
        return
    items = listed(rules, place.at("rules"), "a list of rules", f"[{_RULE}]")
    if len(items) > MAX_RULES:
        place.at("rules").flaw(rules.spot, f"more than {MAX_RULES:,} rules")
        return
    found = (_read_rule(item, kind.data, place) for item in items)
    entries += [entry for entry in found if entry is not None]


def _read_rule(item: Node, kind: str, place: Place) -> Entry | None:
    given = item.data.get("id") if isinstance(item.data, dict) else None
    rule_id = given.data if given is not None and isinstance(given.data, str) else ""
    here = place.at(rule_id[:80] or "rules")
    before = len(place.flaws)
    got = mapping(item, SITE_RULE_KEYS if kind == SITE else RULE_KEYS, here, _RULE)
    if not isinstance(item.data, dict):
        return None
    entry = Entry(rule_id, kind, item, here, got)
    _check_shape(entry)
    _check_params(entry, all_read=len(place.flaws) == before)
    return entry


# --- checks over several keys ----------------------------------------------------------------------------------------

_NOT_WITH_SILENCE: Final = (
    *("when", "event", "clear", "for", "clear_for", "keep_firing_for", "within"),
    *("mute_in", "mute_cap", "schedule", "flap"),
)


def _check_shape(entry: Entry) -> None:
    """Keys that do not go together."""
    given = entry.node.data.keys()
    if not given & {"when", "event", "silence"} and entry.kind != SITE:
        entry.place.flaw(entry.node.spot, "give one of 'when', 'event' or 'silence'")
    for key, why in _refused(entry.kind, given).items():
        if key in given:
            entry.flaw(key, why.format(key))
    if entry.got.get("needs_clear") and entry.got.get("close") == "telemetry":
        entry.flaw("close", "what a person must state to be over cannot be closed by telemetry")
    if entry.part == "port" and not part_fields(entry.kind):
        entry.flaw("part", f"{a_kind(entry.kind)} has no ports")
    ladder: Ladder | None = entry.got.get("severity")
    if ladder and ladder.steps and ("when" not in given or "event" in given):
        entry.flaw("severity", "a ladder is for rules with 'when' and no 'event'")


def _refused(kind: str, given: Collection[str]) -> dict[str, str]:
    """The keys that a rule with these keys cannot have, and why."""
    refused: dict[str, str] = {}
    if "silence" in given and kind != SITE:
        refused = dict.fromkeys(_NOT_WITH_SILENCE, "a silence rule has no '{}'")
    elif "event" in given:
        refused = dict.fromkeys(("clear", "for"), "an event rule has no '{}': the device says when the fault is over")
    if "event" not in given or "when" not in given:
        refused.setdefault("within", "'{}' is for rules with 'event' and 'when'")
    if "mute_in" not in given:
        refused.setdefault("mute_cap", "'{}' needs 'mute_in'")
    return refused


def _check_params(entry: Entry, *, all_read: bool) -> None:
    """A parameter must not hide a field, and must be used: by what we know, if all of the rule could be read."""
    fields = {} if entry.kind == SITE else device_fields(entry.kind) | part_fields(entry.kind)
    used = _names_used(entry)
    for name, declared in entry.params.items():
        here = entry.place.at("params").at(name)
        if name in fields:
            here.flaw(declared.spot, f"'{name}' is a field of {a_kind(entry.kind)}; give the parameter another name")
        elif all_read and name not in used:
            here.flaw(declared.spot, f"the rule does not use its parameter '{name}'")


def _names_used(entry: Entry) -> set[str]:
    """Every name that stands in a condition or for a duration."""
    ladder: Ladder | None = entry.got.get("severity")
    steps = ladder.steps if ladder else ()
    read = [*entry.got.values(), *(entry.got.get("flap") or {}).values(), *(value for step in steps for value in step)]
    texts = [one.data for one in read if isinstance(one, Node) and isinstance(one.data, str)]
    return {one.name for one in read if isinstance(one, Length)}.union(*map(words_of, texts))


def words_of(text: str) -> set[str]:
    """The names in the text of a condition, quoted texts left out."""
    return set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", re.sub(r"\"[^\"]*\"|'[^']*'", "", text)))


def a_kind(kind: str) -> str:
    """`an elevator`, for messages."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
