"""Places in rule files, and files that must be refused without harm: bombs, nonsense, what is no YAML."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alerts.rulebook import parse_rules
from alerts.rulefile import MAX_BYTES, MAX_NESTING, Flaw, Node, Place, Spot, did_you_mean, read_yaml
from alerts.rulekeys import RULE_KEYS
from core.errors import RuleError

RULE = "id: hot, group: heat, severity: P1, title: {zh: 热, en: hot}, when: mains"


def nodes(text: str) -> Node:
    flaws: list[Flaw] = []
    node = read_yaml(text, Place("my.yaml", flaws))
    assert node is not None, flaws
    assert not flaws
    return node


def refused(text: str) -> list[str]:
    with pytest.raises(RuleError) as caught:
        parse_rules(text, "my.yaml")
    return str(caught.value).split("\n")


def outcome(text: str) -> list[str]:
    """What is wrong with a file; nothing, if it can be read."""
    try:
        parse_rules(text, "my.yaml")
    except RuleError as error:
        return str(error).split("\n")
    return []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1:1: the file is empty"),
        ("# only a comment\n", "1:1: the file is empty"),
        ("kind: charger", "1:1: 'rules' is missing"),
        ("rules: []", "1:1: 'kind' is missing"),
        ("kind: charger\nrules: []\nextra: 1", "3:1: unknown key 'extra'; known: kind, overrides, rules"),
        ("kind: charger\nrlues: []", "2:1: unknown key 'rlues'; did you mean 'rules'?"),
        ("- 1", "1:1: expected a mapping, like {kind: charger"),
        ("kind: spaceship\nrules: []", "1:7: kind: unknown kind 'spaceship'; known: elevator, charger, site"),
        ("kind: [charger]\nrules: []", "1:7: kind: unknown kind 'a list'"),
        ("kind: charger\nrules: {}", "2:8: rules: expected a list of rules, like [{id: port-hot"),
        ("kind: charger\nrules:\n  - hot", "3:5: rules: expected a mapping, like {id: port-hot"),
        ("kind: charger\nrules: []\noverrides: {}", "3:12: overrides: expected a list of overrides"),
        ("{", "1:2: not YAML: while parsing a flow node"),
        ("kind: charger\n\trules: []", "2:1: not YAML: "),
        ("kind: charger\nrules: []\n---\nkind: charger", "3:1: not YAML: expected a single document in the stream"),
        ("a: &a [*a]", "1:4: aliases make this too large"),
        ("a: *b", "1:4: not YAML: found undefined alias 'b'"),
        ("kind: \x00", "1:7: not YAML: special characters are not allowed"),
        ("kind: charger\nkind: charger\nrules: []", "2:1: 'kind' is given twice; first in line 1"),
        ("? [a]\n: 1\nkind: charger\nrules: []", "1:3: a key must be a plain name"),
        (
            "x: &x {kind: charger}\n<<: *x\nrules: []",
            "2:1: a key must be a plain name; merging with << is not supported",
        ),
        (
            "kind: !!python/name:os.system charger\nrules: []",
            "1:7: the tag tag:yaml.org,2002:python/name:os.system is not",
        ),
        ("kind: charger\nrules: !!int x", "2:8: 'x' is not a value that can be read"),
        (f"kind: {'9' * 5000}\nrules: []", "1:7: '9999999999999999999999999999999999999999' is not a value"),
        ("kind: charger\nrules: " + "[" * 10_000, "2:27: nested deeper than 20"),
        ("kind: charger\nrules: " + "{a: " * 10_000, "2:81: nested deeper than 20"),
        ("- " * 5_000 + "x", "1:41: nested deeper than 20"),
        ("#" * (MAX_BYTES + 1), "1:1: larger than 1 MB"),
    ],
)
def test_a_file_that_is_no_rule_file(text: str, told: str):
    lines = refused(text)
    assert any(line.startswith(f"my.yaml:{told}") for line in lines), lines
    assert all(line.startswith("my.yaml:") and len(line) < 400 for line in lines)


def test_a_bomb_of_aliases():
    """Nine lines that stand for a thousand million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert any("aliases make this too large" in line for line in refused("\n".join(lines)))


def test_aliases_are_fine():
    text = f"kind: charger\nrules:\n  - {{{RULE}, what_to_do: &cut {{zh: 断电, en: cut}}}}\n"
    text += f"  - {{{RULE.replace('hot,', 'hotter,', 1)}, what_to_do: *cut}}\n"
    first, second = parse_rules(text, "my.yaml")
    assert first.finding.what_to_do == second.finding.what_to_do == ("断电", "cut")


def test_nesting_up_to_the_limit():
    depth = MAX_NESTING - 1
    assert nodes("a: " + "[" * (depth - 1) + "]" * (depth - 1)).plain()


@pytest.mark.parametrize(
    "text",
    [
        "when: a and §x",
        "when: §x",
        "when:    a or §x # not this: x",
        "when: 'a and §x'",
        'when: "a and §x"',
        "when: \"a == 'b c' and §x\"",
        "when: a and\n  §x",
        "when: a\n  and\n\n    b and §x",
        "when: >\n  a and §x\n",
        "when: >-\n  a and b\n  or §x and c\n",
        "when: |\n  a and b\n  or §x\n\n",
        "when: > # a comment\n   a\n   and §x\n",
        "when: 'a\n  and §x'",
        "- {id: y, when: a and §x}",
        "- [a, 热 and §x]",
        "when: a and b§",
        "when: 'a and b§'",
        "when: >\n  a and b§\n",
    ],
)
def test_a_character_of_a_text_is_found_in_the_file(text: str):
    node: Any = nodes(text.replace("§", ""))
    while not isinstance(node.data, str):
        node = (list(node.data.values()) if isinstance(node.data, dict) else node.data)[-1]
    said = node.data.rstrip()
    column = said.index("x") + 1 if "§x" in text else len(said) + 1
    before = text[: text.index("§")].split("\n")
    assert node.spot_in(column) == Spot(len(before), len(before[-1]) + 1)


def test_behind_escapes_the_start_is_named():
    node = nodes('when: "a\\u0020and x"').data["when"]
    assert node.data == "a and x"
    assert node.spot_in(7) == Spot(1, 7)


words = st.lists(st.sampled_from(["a", "bc", "and", "==", "'t'", ">=", "80", "热"]), min_size=1, max_size=8)


@given(words, st.sampled_from(["plain", "single", "double", "folded"]), st.integers(0, 7), st.data())
def test_every_word_of_every_style_is_found(said: list[str], style: str, index: int, data: st.DataObject):
    index %= len(said)
    breaks = [data.draw(st.sampled_from([" ", "  ", "\n  "])) for _ in said[1:]]
    if style == "plain":
        said = ["a", *said[1:]]  # else it may be no text, or no plain one
    body = said[0] + "".join(gap + word for gap, word in zip(breaks, said[1:], strict=True))
    start = len(said[0]) if index else 0
    start += (
        sum(len(gap) + len(word) for gap, word in zip(breaks[: index - 1], said[1:index], strict=True)) if index else 0
    )
    start += len(breaks[index - 1]) if index else 0
    if style == "single":
        said = [word.replace("'", "") for word in said]
        body, start = body.replace("'", ""), start - body[:start].count("'")
    opening = {"plain": "when: ", "single": "when: '", "double": 'when: "', "folded": "when: >\n  "}[style]
    closing = {"plain": "\n", "single": "'\n", "double": '"\n', "folded": "\n"}[style]
    node = nodes(opening + body + closing).data["when"]
    place = 0
    for word in said[:index]:
        place = node.data.index(word, place) + len(word)
    column = node.data.index(said[index], place) + 1
    before = (opening + body[:start]).split("\n")
    assert node.spot_in(column) == Spot(len(before), len(before[-1]) + 1)


@given(st.integers(1, 2000), st.text(max_size=50))
def test_a_place_is_found_for_any_column(column: int, text: str):
    """Whatever an expression says its column is, the message names a line of the file."""
    written = '"' + text.replace("\\", "").replace('"', "") + '"'
    spot = Node(text, Spot(3, 7), written).spot_in(column)
    assert spot.line >= 3
    assert spot.column >= 1


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"%@`#,?\n\t 0123456789.~=<"), max_size=60))
@example("kind: charger\nrules:\n- {title: }")
@example("!!bool 7")
@example("{? : , rules}")
@example("!!float x: [1, .inf, 1e999, -.nan]")
def test_any_text_is_refused_or_read(text: str):
    for content in (
        text,
        f"kind: charger\nrules:\n  - {{{RULE}, {text}}}\n",
        f"kind: charger\nrules: []\noverrides:\n{text}",
    ):
        assert all(line.startswith("my.yaml:") for line in outcome(content))


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "x", "30s", "mains", "P1", "a: b"])
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3))


@given(st.dictionaries(st.sampled_from(sorted(RULE_KEYS)), values))
def test_any_value_under_any_key_is_refused_or_read(given_values: dict[str, Any]):
    """Flow style, as JSON is: every combination of keys and types, and nothing but a RuleError."""
    entry = ", ".join(f"{key}: {_flow(value)}" for key, value in given_values.items())
    lines = outcome(f"kind: charger\nrules:\n  - {{{entry}}}\n")
    assert all(line.startswith("my.yaml:3:") for line in lines)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return f"'{value}'"
    special = {None: "~", True: "true", False: "false"}
    return special[value] if value is None or isinstance(value, bool) else repr(value).replace("nan", ".nan")


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [
        ("temp", ["temp_c", "power_w"], "; did you mean 'temp_c'?"),
        ("WHEN", ["when", "for"], "; did you mean 'when'?"),
        ("zzz", ["b", "a"], "; known: a, b"),
        ("zzz", [f"name-{n}" for n in range(13)], ""),
        ("zzz", [], ""),
    ],
)
def test_hints(name: str, known: list[str], told: str):
    assert did_you_mean(name, known) == told
