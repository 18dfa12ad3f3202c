"""The book of all rules, and how it is made of the files of a folder.

Everything is checked when files are read, overrides included: all that can meet on a device is compiled then, so that
`RuleBook.rules_for` never fails while the service runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from alerts.params import MAX_COMBINATIONS, Names, Override, Parameter, Sheet, Values, as_params, fitting, site_of
from alerts.rulefile import MAX_BYTES, Flaw, Node, Place, Spot, did_you_mean
from alerts.rulekeys import MAX_RULES, Entry, read_file
from alerts.rulemaker import compile_rules
from alerts.rules import SITE, Rule
from core.errors import NotFound, RuleError


class Source(NamedTuple):
    """Where a rule stands and how it can be adjusted, for lists of rules. Disabled ones are there as well."""

    rule_id: str
    kind: str
    file: str
    line: int
    enabled: bool
    parameters: int
    overrides: int


class _Adjusted(NamedTuple):
    """An enabled rule with its parameters, and what it is (ladder steps included) for each set of values."""

    id: str
    kind: str
    sheet: Sheet
    variants: Mapping[Values, tuple[Rule, ...]]


class RuleBook:
    """All rules in force. Made by `load_rules` and `parse_rules`; never changes."""

    def __init__(
        self, adjusted: Sequence[_Adjusted], sources: Sequence[Source], files: Sequence[str], digest: str
    ) -> None:
        self.rules: tuple[Rule, ...] = tuple(rule for one in adjusted for rule in one.variants[one.sheet.defaults])
        """With default parameters, ladder steps included, in the order of the files."""
        self.sources = tuple(sources)
        self.files = tuple(files)
        self.digest = digest
        """Of the content of all files; other content has another one."""
        self._by_id = {one.id: one for one in adjusted}
        self._by_kind: dict[str, list[_Adjusted]] = {}
        for one in adjusted:
            self._by_kind.setdefault(one.kind, []).append(one)
        self._targets = {(o.level, o.target) for one in adjusted for o in one.sheet.overrides}
        self._for_names: dict[tuple[str, Names], tuple[Rule, ...]] = {}
        self._for_values: dict[tuple[str, tuple[Values, ...]], tuple[Rule, ...]] = {}

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def rules_for(self, kind: str, *, device_id: str, model: str | None) -> tuple[Rule, ...]:
        """The rules of a device with its own parameters: the same tuple for all whose parameters are equal.

        `device_id`: `fenghe.lift-1`, or `fenghe.*` with kind `site`. A kind without rules has none.
        """
        key = (kind, self._names(device_id, model))
        found = self._for_names.get(key)
        if found is None:
            adjusted = self._by_kind.get(kind, [])
            values = tuple(one.sheet.values(key[1]) for one in adjusted)
            fresh = tuple(r for one, its in zip(adjusted, values, strict=True) for r in one.variants[its])
            found = self._for_names[key] = self._for_values.setdefault((kind, values), fresh)
        return found

    def parameters(self, rule_id: str, *, device_id: str, model: str | None) -> list[Parameter]:
        """What the parameters of a rule are on a device, and where each value comes from. Raises NotFound."""
        one = self._by_id.get(rule_id.partition(".")[0])
        if one is None:
            raise NotFound("rule", rule_id)
        return one.sheet.told(self._names(device_id, model))

    def _names(self, device_id: str, model: str | None) -> Names:
        """What of a device any override names; so there are few, however many devices."""
        site = site_of(device_id)
        return Names(
            site if ("site", site) in self._targets else None,
            model if ("model", model) in self._targets else None,
            device_id if ("device", device_id) in self._targets else None,
        )


# --- files -----------------------------------------------------------------------------------------------------------


def load_rules(folder: Path) -> RuleBook:
    """The rules of all `*.yaml` files in a folder, in order of file name. Raises RuleError naming every flaw."""
    flaws: list[Flaw] = []
    files: dict[str, str] = {}
    contents = _contents(folder)
    flaws += [
        Flaw(path.name, Spot(1, 1), "rule files end in .yaml: it would be left out") for path in folder.glob("*.yml")
    ]
    for name, content in contents.items():
        if isinstance(content, OSError):
            flaws.append(Flaw(name, Spot(1, 1), f"cannot be read: {content.strerror or content}"))
            continue
        try:
            files[name] = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = content[: error.start].split(b"\n")
            spot = Spot(len(before), len(before[-1].decode(errors="replace")) + 1)
            flaws.append(Flaw(name, spot, f"not UTF-8: {error.reason}"))
    return _book(files, flaws, _digest(contents))


def parse_rules(text: str, name: str) -> RuleBook:
    """The rules in one file's text. Raises RuleError, whose lines name file, line, column, rule and key."""
    return parse_files({name: text})


def parse_files(texts: Mapping[str, str]) -> RuleBook:
    """The rules in the texts of several files, by name. Raises RuleError."""
    return _book(texts, [], _digest({name: text.encode(errors="replace") for name, text in texts.items()}))


def digest(folder: Path) -> str:
    """Of the content of all rule files; rules are read again when it changes. Raises RuleError if there are none."""
    return _digest(_contents(folder))


def _contents(folder: Path) -> dict[str, bytes | OSError]:
    found: dict[str, bytes | OSError] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            with path.open("rb") as file:
                found[path.name] = file.read(MAX_BYTES + 4)  # what is larger is refused; never all of a large file
        except OSError as error:
            found[path.name] = error
    if not found:
        raise RuleError(f"no rule files (*.yaml) in {folder}")
    return found


def _digest(contents: Mapping[str, bytes | OSError]) -> str:
    total = hashlib.sha256()
    for name, content in contents.items():
        data = content if isinstance(content, bytes) else b"unreadable"
        total.update(f"{name}\0{len(data)}\0".encode() + data)
    return total.hexdigest()[:16]


def _book(files: Mapping[str, str], flaws: list[Flaw], digest: str) -> RuleBook:
    entries: list[Entry] = []
    overrides: list[Override] = []
    for name, content in files.items():
        read_file(content, Place(name, flaws), entries, overrides)
    if len(entries) > MAX_RULES:
        raise RuleError(f"more than {MAX_RULES:,} rules in all files together")
    _check_ids(entries)
    _check_closing(entries)
    held_by = _inhibitions(entries)
    by_rule = _by_rule(overrides, entries)
    adjusted = [_adjusted(entry, by_rule.get(entry.id, []), held_by[entry.id]) for entry in entries]
    if flaws:
        raise RuleError("\n".join(map(str, sorted(dict.fromkeys(flaws)))))
    enabled = [one for one, entry in zip(adjusted, entries, strict=True) if entry.enabled]
    sources = [_source(entry, len(by_rule.get(entry.id, []))) for entry in entries]
    return RuleBook(enabled, sources, list(files), digest)


def _source(entry: Entry, overrides: int) -> Source:
    file, line = entry.place.file, entry.node.spot.line
    return Source(entry.id, entry.kind, file, line, entry.enabled, len(entry.params), overrides)


def _adjusted(entry: Entry, overrides: Sequence[Override], held_by: frozenset[str]) -> _Adjusted:
    sheet = Sheet(entry.params, fitting(entry.params, overrides))
    return _Adjusted(entry.id, entry.kind, sheet, _variants(entry, sheet, held_by))


def _variants(entry: Entry, sheet: Sheet, held_by: frozenset[str]) -> dict[Values, tuple[Rule, ...]]:
    """The rule for every set of values that its overrides can lead to."""
    flaws = entry.place.flaws
    before = len(flaws)
    found = {sheet.defaults: compile_rules(entry, as_params(sheet.declared, sheet.defaults), held_by, entry.place)}
    if len(flaws) > before:
        return found
    if sheet.combination_count > MAX_COMBINATIONS:
        entry.place.flaw(entry.node.spot, "too many overrides: they can meet in more than 20 000 ways")
        return found
    for device, override in sheet.combinations():
        values = sheet.values(device)
        if values not in found:
            wrong = Place(entry.place.file, [], entry.id)
            found[values] = compile_rules(entry, as_params(sheet.declared, values), held_by, wrong)
            for flaw in wrong.flaws:
                override.place.at("params").flaw(override.spot, f"with these values: {flaw.text}")
    return found


# --- checks over several rules ---------------------------------------------------------------------------------------


def _check_ids(entries: Iterable[Entry]) -> None:
    first: dict[str, Entry] = {}
    for entry in entries:
        if entry.id and first.setdefault(entry.id, entry) is not entry:
            other = first[entry.id]
            entry.flaw("id", f"rule id '{entry.id}' is used already at {other.place.file}:{other.spot('id').line}")


def _check_closing(entries: Iterable[Entry]) -> None:
    """Rules of a group share an incident: what one of them leaves to a person, another must not close by telemetry."""
    first: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        group = entry.got.get("group")
        if group is None:
            continue
        other = first.setdefault((entry.kind, group), entry)
        if other.got.get("close", "person") != entry.got.get("close", "person"):
            entry.flaw(
                "close",
                f"group '{group}' of {entry.kind}: some rules close by telemetry and some by a person, "
                f"like '{other.id}'; they share one incident",
            )


def _by_rule(overrides: Iterable[Override], entries: Sequence[Entry]) -> dict[str, list[Override]]:
    """Overrides by rule; those for rules that are not there, or at a level they do not have, are noted down."""
    kinds = {entry.id: entry.kind for entry in entries if entry.id}
    found: dict[str, list[Override]] = {}
    for override in overrides:
        kind = kinds.get(override.rule_id)
        if kind is None:
            hint = did_you_mean(override.rule_id, kinds)
            override.place.at("rule").flaw(override.spot, f"there is no rule '{override.rule_id}'{hint}")
        elif kind == SITE and override.level != "site":
            override.place.flaw(
                override.spot, f"'{override.rule_id}' is about a whole site: only 'site' can override it"
            )
        else:
            found.setdefault(override.rule_id, []).append(override)
    return found


Group = tuple[str, str]
"""Kind and name: lifts and piles may call a group the same."""


class _Hold(NamedTuple):
    """What an entry says under `inhibited_by`: a name, and the groups that it means."""

    entry: Entry
    node: Node
    groups: set[Group]


def _inhibitions(entries: Sequence[Entry]) -> dict[str, frozenset[str]]:
    """The groups that hold back each rule, by its id. Unknown names and circles are noted down."""
    known = _groups(entries)
    holds = [hold for entry in entries for hold in _holds(entry, known)]
    _check_circles(holds)
    found: dict[str, set[str]] = {entry.id: set() for entry in entries}
    for hold in holds:
        found[hold.entry.id].update(group for _, group in hold.groups)
    return {rule_id: frozenset(groups) for rule_id, groups in found.items()}


def _groups(entries: Iterable[Entry]) -> dict[str, dict[str, set[Group]]]:
    """By kind: the groups that are meant by a name, of a group or of a rule."""
    found: dict[str, dict[str, set[Group]]] = {}
    for entry in entries:
        if group := entry.got.get("group"):
            for name in (group, entry.id):
                found.setdefault(entry.kind, {}).setdefault(name, set()).add((entry.kind, group))
    return found


def _holds(entry: Entry, known: Mapping[str, Mapping[str, set[Group]]]) -> Iterator[_Hold]:
    own, of_site = known.get(entry.kind, {}), known.get(SITE, {})
    for node in entry.got.get("inhibited_by") or ():
        meant = own.get(node.data, set()) | of_site.get(node.data, set())
        if not meant:
            hint = did_you_mean(node.data, own.keys() | of_site.keys())
            entry.place.at("inhibited_by").flaw(node.spot, f"there is no group or rule '{node.data}'{hint}")
        yield _Hold(entry, node, meant)


def _check_circles(holds: Sequence[_Hold]) -> None:
    edges: dict[Group, set[Group]] = {}
    for hold in holds:
        edges.setdefault(_own_group(hold.entry), set()).update(hold.groups)
    for entry, node, groups in holds:
        for start in sorted(groups):
            circle = _way(edges, start, _own_group(entry))
            if circle:
                told = " -> ".join(group for _, group in (circle[-1], *circle))
                entry.place.at("inhibited_by").flaw(node.spot, f"groups hold each other back in a circle: {told}")


def _own_group(entry: Entry) -> Group:
    return entry.kind, entry.got.get("group", "")


def _way(edges: Mapping[Group, set[Group]], start: Group, end: Group) -> list[Group]:
    """The shortest way along the edges, both ends included; empty: there is none."""
    ways, seen = [[start]], {start}
    for way in ways:
        if way[-1] == end:
            return way
        for following in sorted(edges.get(way[-1], set()) - seen):
            seen.add(following)
            ways.append([*way, following])
    return []
