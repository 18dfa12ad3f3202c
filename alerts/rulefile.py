"""YAML in which every value knows its line and column, and checks that tell all that is wrong with a file at once.

A `Node` is a value with its place; a `Place` is where flaws are noted down; a table of `Key`s says what a mapping has.
What the keys of a rule are, and what they mean, stands in `alerts/rulekeys.py`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import yaml
from yaml.constructor import SafeConstructor

from core.clock import duration_ms

MAX_BYTES: Final = 1_000_000
MAX_NESTING: Final = 20
MAX_VALUES: Final = 200_000
"""In one file, what an alias stands for counted each time: a small file can say a great deal with aliases."""

MAX_DURATION_MS: Final = 366 * 86_400_000
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TEXT_TAGS: Final = {"str", "timestamp", "value"}
_TAG: Final = "tag:yaml.org,2002:"


class Spot(NamedTuple):
    """A place in a file; both count from 1."""

    line: int
    column: int


class Flaw(NamedTuple):
    """One thing wrong with one file. Sorts by file and line."""

    file: str
    spot: Spot
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.spot.line}:{self.spot.column}: {self.text}"


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a file: `data` is text, number, true or false, None, a list of nodes or a dict of nodes."""

    data: Any
    spot: Spot
    written: str = ""
    """A scalar as it stands in the file, quotes included."""
    keys: Mapping[str, Spot] = field(default_factory=dict)
    """Where the keys of a mapping stand."""

    @property
    def what(self) -> str:
        """What it is, for a message: `a number`."""
        if self.data is None:
            return "nothing"
        names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
        return names.get(type(self.data), "a mapping")

    def spot_in(self, column: int) -> Spot:
        """Where in the file character `column` (from 1) of this text stands; its start where quoting hides that."""
        letters = [index for index, letter in enumerate(self.written) if not letter.isspace()]
        start = 1 if self.written[:1] in ("'", '"') else 0
        if self.written[:1] in ("|", ">"):
            first_line_ends = self.written.find("\n")
            start = sum(index < first_line_ends for index in letters)
        said = "".join(str(self.data).split())
        if "".join(self.written[index] for index in letters[start : start + len(said)]) != said:
            return self.spot
        before = len("".join(str(self.data)[: column - 1].split()))
        at = letters[start + before] if before < len(said) else letters[start + before - 1] + 1
        lines = self.written[:at].split("\n")
        return Spot(self.spot.line + len(lines) - 1, (self.spot.column if len(lines) == 1 else 1) + len(lines[-1]))

    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.data, dict):
            return {key: node.plain() for key, node in self.data.items()}
        return [node.plain() for node in self.data] if isinstance(self.data, list) else self.data


@dataclass(frozen=True, slots=True)
class Place:
    """Where we are in a file, for messages; `flaws` is shared by all files that are read together."""

    file: str
    flaws: list[Flaw]
    path: str = ""

    def at(self, key: str) -> Place:
        """The same, one key further down."""
        return replace(self, path=f"{self.path}.{key}" if self.path else key)

    def flaw(self, spot: Spot, text: str) -> None:
        """Notes down what is wrong."""
        self.flaws.append(Flaw(self.file, spot, f"{self.path}: {text}" if self.path else text))

    def expected(self, node: Node, what: str, example: str) -> None:
        """Notes down that there is something of another type."""
        self.flaw(node.spot, f"expected {what}, like {example}; this is {node.what}")


Read = Callable[[Node, Place], Any]
"""Takes the value out of a node; notes flaws down and returns None where it cannot."""


class Key(NamedTuple):
    """What may stand under a key of a mapping."""

    read: Read
    required: bool = False


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`; did you mean 'x'?` for something close by, else what is known, if that is little."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(sorted(known))}" if 0 < len(known) <= 12 else ""


# --- from text to nodes ----------------------------------------------------------------------------------------------


def read_yaml(text: str, place: Place) -> Node | None:
    """The nodes of a file; None, with the flaw noted down, if it is no YAML that we take."""
    if len(text.encode(errors="replace")) > MAX_BYTES:
        place.flaw(Spot(1, 1), f"larger than {MAX_BYTES // 1_000_000} MB")
        return None
    try:
        tree = _Composer(text).get_single_node()
        if tree is None:
            place.flaw(Spot(1, 1), "the file is empty")
            return None
        return _Walk(text, place).node(tree, 1)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = "; ".join(part for part in (error.context, error.problem) if part)
        place.flaw(_spot(mark) if mark else Spot(1, 1), f"not YAML: {said}")
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        place.flaw(Spot(len(before), len(before[-1]) + 1), f"not YAML: {error.reason}")
    except _TooMuch as error:
        place.flaw(error.spot, str(error))
    return None


class _TooMuch(Exception):
    def __init__(self, text: str, mark: yaml.Mark) -> None:
        self.spot = _spot(mark)
        super().__init__(text)


class _Composer(yaml.SafeLoader):
    """Stops before nesting is too deep for anybody, Python's stack included."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise _TooMuch(f"nested deeper than {MAX_NESTING}", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Walk:
    """Makes our nodes of PyYAML's: keys are text and stand there once, values are plain, aliases are written out."""

    def __init__(self, text: str, place: Place) -> None:
        self._text = text
        self._place = place
        self._values = 0

    def node(self, tree: yaml.Node, depth: int) -> Node:
        self._values += 1
        if depth > MAX_NESTING or self._values > MAX_VALUES:
            raise _TooMuch("aliases make this too large: nested too deep or too many values", tree.start_mark)
        spot = _spot(tree.start_mark)
        if isinstance(tree, yaml.SequenceNode):
            return Node([self.node(item, depth + 1) for item in tree.value], spot)
        if isinstance(tree, yaml.MappingNode):
            return self._mapping(tree, spot, depth)
        return Node(self._scalar(tree, spot), spot, self._text[tree.start_mark.index : tree.end_mark.index])

    def _mapping(self, tree: yaml.MappingNode, spot: Spot, depth: int) -> Node:
        data: dict[str, Node] = {}
        keys: dict[str, Spot] = {}
        for key, value in tree.value:
            at = _spot(key.start_mark)
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}merge":
                self._place.flaw(at, "a key must be a plain name; merging with << is not supported")
            elif key.value in keys:
                first = keys[key.value]
                self._place.flaw(at, f"'{key.value}' is given twice; first in line {first.line}")
            else:
                keys[key.value] = at
                data[key.value] = self.node(value, depth + 1)
        return Node(data, spot, keys=keys)

    def _scalar(self, tree: yaml.Node, spot: Spot) -> Any:
        kind = tree.tag.removeprefix(_TAG)
        if kind in _TEXT_TAGS:
            return tree.value
        if kind not in ("int", "float", "bool", "null"):
            self._place.flaw(spot, f"the tag {tree.tag} is not supported")
            return None
        try:
            return SafeConstructor().construct_object(tree)
        except (ValueError, KeyError, OverflowError, IndexError):  # `!!int x`, `!!bool 7`, a number of 5 000 digits
            self._place.flaw(spot, f"'{tree.value[:40]}' is not a value that can be read")
            return None


def _spot(mark: Any) -> Spot:
    return Spot(mark.line + 1, mark.column + 1)


# --- from nodes to values --------------------------------------------------------------------------------------------


def mapping(node: Node, table: Mapping[str, Key], place: Place, example: str) -> dict[str, Any]:
    """The values of a mapping by its table; only those that could be read."""
    if not isinstance(node.data, dict):
        place.expected(node, "a mapping", example)
        return {}
    got = {}
    for name, value in node.data.items():
        if name not in table:
            place.flaw(node.keys[name], f"unknown key '{name}'{did_you_mean(name, table)}")
        elif (read := table[name].read(value, place.at(name))) is not None:
            got[name] = read
    for name, key in table.items():
        if key.required and name not in node.data:
            place.flaw(node.spot, f"'{name}' is missing")
    return got


def listed(node: Node, place: Place, what: str, example: str) -> list[Node]:
    """The items of a list."""
    if isinstance(node.data, list):
        return node.data
    place.expected(node, what, example)
    return []


def is_name(name: str) -> bool:
    """Whether a parameter can be called that."""
    return _NAME.fullmatch(name) is not None


def text(limit: int, example: str) -> Read:
    """A text that is not empty."""

    def read(node: Node, place: Place) -> str | None:
        if not isinstance(node.data, str):
            place.expected(node, "a text", example)
        elif not node.data.strip() or len(node.data) > limit:
            place.flaw(node.spot, f"must have 1 to {limit} characters")
        else:
            return node.data
        return None

    return read


def condition(node: Node, place: Place) -> Node | None:
    """The text of a condition, with its place; it is compiled later, when the parameters are known."""
    if isinstance(node.data, str):
        return node
    place.expected(node, "a condition", "temp_c >= 80")
    return None


def identifier(node: Node, place: Place) -> str | None:
    """The id of a rule, a group or a site."""
    name = node.data if isinstance(node.data, str) else node.written
    if _ID.fullmatch(name):
        return name
    place.flaw(node.spot, f"'{name[:80]}' is no id: lower-case letters, digits and -, at most 64, like port-hot")
    return None


def flag(node: Node, place: Place) -> bool | None:
    """true or false."""
    if isinstance(node.data, bool):
        return node.data
    place.expected(node, "true or false", "true")
    return None


def choice(*known: str) -> Read:
    """One of a few words."""

    def read(node: Node, place: Place) -> str | None:
        if node.data in known:
            return str(node.data)
        place.flaw(
            node.spot, f"'{node.data if isinstance(node.data, str) else node.what}' is none of {', '.join(known)}"
        )
        return None

    return read


def names(example: str) -> Read:
    """A list of names with their places; one alone needs no brackets."""

    def read(node: Node, place: Place) -> list[Node] | None:
        items = [node] if isinstance(node.data, str) else listed(node, place, "a list of names", example)
        for item in items:
            if not isinstance(item.data, str):
                place.expected(item, "a name", example)
        return [item for item in items if isinstance(item.data, str)] or None

    return read


def number(low: float, high: float, example: str) -> Read:
    """A whole number."""

    def read(node: Node, place: Place) -> int | None:
        if not isinstance(node.data, int) or isinstance(node.data, bool):
            place.expected(node, "a whole number", example)
        elif not low <= node.data <= high:
            place.flaw(node.spot, f"must be between {low:g} and {high:g}")
        else:
            return node.data
        return None

    return read


class Length(NamedTuple):
    """A duration as written: so many ms, or the name of a parameter that says how many."""

    ms: int | None
    name: str
    node: Node
    low_ms: int


def duration(low_ms: int = 0) -> Read:
    """A duration or the name of a parameter."""

    def read(node: Node, place: Place) -> Length | None:
        if node.data == 0 and isinstance(node.data, int) and not isinstance(node.data, bool):
            node = replace(node, data="0s")
        if isinstance(node.data, int | float) and not isinstance(node.data, bool):
            place.flaw(
                node.spot, f"'{node.written}' is not a duration: it needs a unit; did you mean '{node.written}s'?"
            )
        elif not isinstance(node.data, str):
            place.expected(node, "a duration or a parameter", "90s")
        elif _NAME.fullmatch(node.data.strip()):
            return Length(None, node.data.strip(), node, low_ms)
        else:
            return _length(node, low_ms, place)
        return None

    return read


def _length(node: Node, low_ms: int, place: Place) -> Length | None:
    try:
        ms = duration_ms(node.data)
    except ValueError as error:
        place.flaw(node.spot, str(error))
        return None
    if (wrong := unfit(ms, low_ms)) is not None:
        place.flaw(node.spot, f"'{node.data}' is {wrong}")
        return None
    return Length(ms, "", node, low_ms)


def unfit(ms: float, low_ms: int) -> str | None:
    """Why a duration cannot be used; None: it can."""
    if ms < low_ms:
        return f"too short: at least {low_ms / 1000:g}s"
    return "too long: at most 366d" if ms > MAX_DURATION_MS else None
