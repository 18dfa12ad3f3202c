"""Test cases for rules: a YAML file of time lines and the incidents that they must lead to (docs/rule-tests.md).

Faults are told like those of rule files: all at once, each as file:line:column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from alerts.casesteps import Cast, steps_of
from alerts.player import BASE, WAYS, Actor, Case, line_of
from alerts.rulebook import RuleBook, load_rules, parse_files
from alerts.rulefile import (
    Flaw,
    Key,
    Node,
    Place,
    Spot,
    choice,
    did_you_mean,
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
from core.errors import RuleError
from core.kinds import KINDS
from core.reading import Value

HOME_ZONE: Final = "Asia/Shanghai"
DEFAULT_DEVICE: Final = "here.device"


@dataclass(frozen=True)
class CaseFile:
    """What a file of test cases says."""

    name: str
    point: int | None
    """The numbered point of docs/rules.md that it shows, for our own cases."""
    held_by: tuple[str, ...]
    """Tests that hold the point as well, `tests/storage/test_x.py::test_y`."""
    cases: tuple[Case, ...]
    own_rules: bool
    """Whether it brings its own rules."""


def load_cases(path: Path, rules: Path | None = None) -> CaseFile:
    """The cases of a file. Raises RuleError naming every flaw.

    Without rules of its own it is about those of its `folder:`, else of the folder `rules`, else, where it lies in a
    folder called `tests`, of the folder above.
    """

    def book_of(folder: str) -> RuleBook:
        if folder:
            return load_rules(path.parent / folder)
        if rules is not None:
            return load_rules(rules)
        if path.resolve().parent.name == "tests":
            return load_rules(path.resolve().parent.parent)
        raise RuleError(f"{path.name}:1:1: neither 'rules' nor 'folder' says which rules these cases are about")

    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RuleError(f"{path.name}:1:1: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise RuleError(f"{path.name}:1:1: not UTF-8: {error.reason}") from None
    return parse_cases(content, path.name, book_of)


def parse_cases(content: str, name: str, book_of: Callable[[str], RuleBook]) -> CaseFile:
    """The cases in one file's text. `book_of`: the rules of a folder; "" for those of a file that names none.

    Raises RuleError, whose lines name file, line and column.
    """
    flaws: list[Flaw] = []
    place = Place(name, flaws)
    node = read_yaml(content, place)
    got = mapping(node, FILE_KEYS, place, "{kind: charger, cases: [...]}") if node is not None else {}
    if flaws:
        raise RuleError("\n".join(map(str, sorted(flaws))))
    if not got.get("cases"):
        if not got.get("held_by"):
            raise RuleError(f"{name}:1:1: 'cases' is missing")
        return CaseFile(name, got.get("point"), got["held_by"], (), own_rules=False)
    book = _own_rules(got["rules"], content, name) if "rules" in got else book_of(got.get("folder", ""))
    others = {label: _own_rules(rules, content, name) for label, rules in got.get("other_rules", {}).items()}
    cases = tuple(_cases(got, place, book, others))
    if flaws:
        raise RuleError("\n".join(map(str, sorted(dict.fromkeys(flaws)))))
    return CaseFile(name, got.get("point"), got.get("held_by", ()), cases, "rules" in got)


# --- rules that stand in the file of the cases ------------------------------------------------------------------------


def _own_rules(node: Node, content: str, name: str) -> RuleBook:
    """Rules by kind. Each kind is read as a rule file of its own in which all else is blank: places stay true."""
    kinds = dict(node.data) if isinstance(node.data, dict) else {}
    wrong = [Flaw(name, node.keys[kind], f"unknown kind '{kind}'{did_you_mean(kind, _RULE_KINDS)}")
             for kind in kinds if kind not in _RULE_KINDS]  # fmt: skip
    if not kinds.keys() - {"overrides"}:
        wrong.append(Flaw(name, node.spot, "rules stand by kind, like {charger: [...], site: [...]}"))
    lines = content.split("\n")
    wrong += [
        Flaw(name, node.keys[kind], f"'{kind}:' must stand on a line of its own, below 'rules:' and further right")
        for kind in kinds
        if lines[node.keys[kind].line - 1][: node.keys[kind].column - 1].strip() or node.keys[kind].column == 1
    ]
    if wrong:
        raise RuleError("\n".join(map(str, sorted(wrong))))
    texts = {kind: _alone(lines, kind, node.keys[kind]) for kind in kinds}
    extra = texts.pop("overrides", {})
    files = {
        name if index == 0 else f"{name} ({kind})": _text(kept | (extra if index == 0 else {}), kind)
        for index, (kind, kept) in enumerate(texts.items())
    }
    return parse_files(files)


def _alone(lines: list[str], kind: str, spot: Spot) -> dict[int, str]:
    """The lines of the section of a kind, by index; with the key that a rule file has there."""
    first, indent = spot.line - 1, spot.column - 1
    last = first + 1
    while last < len(lines) and _belongs(lines[last], indent):
        last += 1
    key = kind if kind == "overrides" else "rules"
    head = f"{key}:".ljust(indent + len(kind) + 1) + lines[first][indent + len(kind) + 1 :]
    return {first: head} | {index: lines[index] for index in range(first + 1, last)}


def _text(kept: Mapping[int, str], kind: str) -> str:
    """A rule file of these lines, each where it stands; all else is blank."""
    lines = [kept.get(index, "") for index in range(max(kept) + 1)]
    lines[0] = f"kind: {kind}"  # where the case file has its first line, which is never one of these
    return "\n".join(lines) + "\n"


def _belongs(line: str, indent: int) -> bool:
    bare = line.lstrip(" ")
    depth = len(line) - len(bare)
    return not bare or bare.startswith("#") or depth > indent or (depth == indent and bare.startswith("- "))


_RULE_KINDS: Final = (*KINDS, SITE, "overrides")


# --- cases -----------------------------------------------------------------------------------------------------------


def _as_is(node: Node, place: Place) -> Node:
    return node


def _items(node: Node, place: Place) -> list[Node] | None:
    return listed(node, place, "a list", "[...]") or None


def _labelled(node: Node, place: Place) -> dict[str, Node] | None:
    if isinstance(node.data, dict):
        return dict(node.data)
    place.expected(node, "a mapping", "{edited: {charger: [...]}}")
    return None


def _tests(node: Node, place: Place) -> tuple[str, ...]:
    return tuple(item.data for item in names("tests/storage/test_x.py::test_y")(node, place) or ())


def _words(node: Node, place: Place) -> list[Node]:
    items = node.data if isinstance(node.data, list) else [node]
    for item in items:
        if not isinstance(item.data, str):
            place.expected(item, "a text", "20s raise port-hot/3 P1")
    return [item for item in items if isinstance(item.data, str)]


def _statics(node: Node, place: Place) -> dict[str, Value] | None:
    if not isinstance(node.data, dict):
        place.expected(node, "a mapping", "{floors: 6}")
        return None
    for key, value in node.data.items():
        if not isinstance(value.data, str | int | float):
            place.flaw(value.spot, f"{key} must be a text, a number, true or false; this is {value.what}")
    return {key: value.data for key, value in node.data.items() if isinstance(value.data, str | int | float)}


def _zone(node: Node, place: Place) -> ZoneInfo | None:
    try:
        return ZoneInfo(str(node.data))
    except (ValueError, OSError, KeyError):
        place.flaw(node.spot, f"'{node.data}' is no time zone, like Asia/Shanghai")
        return None


_WAY: Final = choice(*WAYS)
_ABOUT: Final = text(300, "80 °C for 30 s")
FILE_KEYS: Final = {
    "about": Key(text(2000, "what these cases are about")),
    "point": Key(number(1, 99, "6")),
    "held_by": Key(_tests),
    "kind": Key(choice(*KINDS)),
    "rules": Key(_as_is),
    "other_rules": Key(_labelled),
    "folder": Key(text(300, "../rules")),
    "fields": Key(_as_is),
    "cases": Key(_items),
}
_ACTOR_KEYS: Final = {"kind": Key(choice(*KINDS)), "statics": Key(_statics), "zone": Key(_zone)}
CASE_KEYS: Final = _ACTOR_KEYS | {
    "about": Key(_ABOUT, required=True),
    "device": Key(text(129, "fenghe.lift-1")),
    "devices": Key(_labelled),
    "start": Key(text(40, "2026-03-29T00:00")),
    "numbered": Key(flag),
    "rules": Key(identifier),
    "steps": Key(_items, required=True),
    "expect": Key(_as_is, required=True),
    "quiet": Key(_words),
    "restarts": Key(flag),
    "batches": Key(flag),
    "known_fault": Key(_labelled),
}


def _cases(file: Mapping[str, Any], place: Place, book: RuleBook, others: Mapping[str, RuleBook]) -> Iterator[Case]:
    for index, node in enumerate(file["cases"]):
        here = place.at(f"cases[{index}]")
        got = mapping(node, CASE_KEYS, here, "{about: ..., steps: [...], expect: [...]}")
        if "about" not in got or "steps" not in got or "expect" not in got:
            continue
        case = _case(node, got, file, here, book, others)
        if case is not None:
            yield case


def _case(
    node: Node,
    got: Mapping[str, Any],
    file: Mapping[str, Any],
    place: Place,
    book: RuleBook,
    others: Mapping[str, RuleBook],
) -> Case | None:
    devices = _devices(node, got, file, place)
    if not devices:
        return None
    first = next(iter(devices))
    start = _start(node.data.get("start"), devices[first], place)
    chosen = book
    if "rules" in got:
        chosen = others.get(got["rules"], book)
        if got["rules"] not in others:
            place.flaw(node.data["rules"].spot, f"no 'other_rules' are called '{got['rules']}'")
    cast = Cast(devices, start, others, numbered=bool(got.get("numbered")))
    steps = tuple(steps_of(got["steps"], cast, place))
    faults = {str(way): str(why.data) for way, why in got.get("known_fault", {}).items() if way in WAYS}
    for way in got.get("known_fault", {}):
        if way not in WAYS:
            place.flaw(node.data["known_fault"].keys[way], f"unknown key '{way}'{did_you_mean(way, WAYS)}")
    case = Case(
        got["about"],
        node.spot,
        chosen,
        devices,
        steps,
        tuple(_expected(got["expect"], place.at("expect"))),
        tuple(item.data for item in got.get("quiet", ())),
        start,
        frozenset(way for way in WAYS if way == "plain" or got.get(way, True)),
        faults,  # type: ignore[arg-type] # its keys were looked at above
    )
    _check_names(case, got, place)
    return case


def _devices(node: Node, got: Mapping[str, Any], file: Mapping[str, Any], place: Place) -> dict[str, Actor]:
    """The devices of a case by id; its own comes first."""
    kind = got.get("kind", file.get("kind"))
    if kind is None:
        place.flaw(node.spot, "'kind' is missing, here or at the top of the file")
        return {}
    own = got.get("device", DEFAULT_DEVICE)
    first = own if "." in own else f"here.{own}"
    zone = got.get("zone", ZoneInfo(HOME_ZONE))
    found = {first: Actor(kind, got.get("statics", {}), zone)}
    for name, facts in got.get("devices", {}).items():
        if facts.data is None:
            facts = Node({}, facts.spot)  # noqa: PLW2901 - `pile-2:` with nothing behind it has no facts of its own
        its = mapping(facts, _ACTOR_KEYS, place.at(f"devices.{name}"), "{kind: charger}")
        device_id = name if "." in name else f"{first.partition('.')[0]}.{name}"
        found[device_id] = Actor(its.get("kind", kind), its.get("statics", {}), its.get("zone", zone))
    return found


def _start(node: Node | None, actor: Actor, place: Place) -> int:
    """When second zero is: by the clock of the device's zone, unless an offset stands behind it."""
    if node is None:
        return BASE
    try:
        when = datetime.fromisoformat(str(node.data))
    except ValueError:
        place.at("start").flaw(node.spot, f"'{node.data}' is no time, like 2026-03-29T00:00")
        return BASE
    return round((when if when.tzinfo else when.replace(tzinfo=actor.zone)).timestamp() * 1000)


def _expected(node: Node, place: Place) -> Iterator[str]:
    for item in _words(node, place) if node.data is not None else ():
        try:
            yield str(line_of(item.data))
        except ValueError as error:
            place.flaw(item.spot, str(error))


def _check_names(case: Case, got: Mapping[str, Any], place: Place) -> None:
    """A case that names rules or devices that do not exist would never fail, or never come true."""
    known = case.rule_ids
    named = [(item, item.data) for item in got.get("quiet", ())]
    lines = [item for item in (got["expect"].data or ()) if isinstance(item.data, str)]
    if len(lines) == len(case.expect):
        named += [(item, line_of(text).rule_id) for item, text in zip(lines, case.expect, strict=True)]
    for item, rule_id in named:
        if rule_id not in known:
            place.flaw(item.spot, f"there is no rule '{rule_id}'{did_you_mean(rule_id, known)}")
