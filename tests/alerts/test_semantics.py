"""docs/rules.md point by point: the cases of `tests/cases/semantics`, played in every way."""

from __future__ import annotations

import ast

import pytest

from alerts.casefile import load_cases
from alerts.engine import Engine
from alerts.player import Case, Way, difference
from alerts.rulebook import RuleBook, parse_rules
from alerts.rules import Rule
from core.errors import RuleError
from core.reading import Batch, Reading
from tests.alerts.timeline import in_every_way
from tests.servers import ROOT

FILES = {path.stem: load_cases(path) for path in sorted((ROOT / "tests/cases/semantics").glob("*.yaml"))}
CASES = {f"{name}: {case.about}": case for name, file in FILES.items() for case in file.cases}


@pytest.mark.parametrize(("case", "way"), in_every_way(CASES))
def test_it_comes_out_as_the_page_says(case: Case, way: Way):
    assert difference(case, way) == ""


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_file_has_cases_or_names_tests_that_exist(file):
    assert file.cases or file.held_by
    for name in file.held_by:
        path, _, function = name.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


HEAD = "kind: charger\nrules:\n"
TITLE = "severity: P1, title: {zh: 漏电, en: leakage}"
TWO_RULES = parse_rules(
    f"{HEAD}  - {{id: leak, group: leak, {TITLE}, when: leakage_ma >= 30}}\n"
    f"  - {{id: dark, group: dark, {TITLE}, when: not mains}}\n",
    "test.yaml",
)


class _Broken(Exception):
    pass


def breaking(rule: Rule, when_above_ma: float) -> Rule:
    """The rule with a condition that cannot be evaluated above a value. No text that we take compiles to such a one."""
    assert rule.when is not None
    sound = rule.when.evaluate

    def evaluate(scope):
        value = scope.field("leakage_ma")
        if value is not None and value > when_above_ma:
            raise _Broken("on purpose")
        return sound(scope)

    return rule._replace(when=rule.when._replace(evaluate=evaluate))


def book_of(*rules: Rule) -> RuleBook:
    book = parse_rules(f"{HEAD}  - {{id: x, group: x, {TITLE}, when: mains, enabled: false}}\n", "test.yaml")
    book.rules_for = lambda kind, **_: rules if kind == "charger" else ()  # type: ignore[method-assign]
    return book


def test_a_rule_that_cannot_be_evaluated_is_named_and_keeps_its_state():
    leak, dark = TWO_RULES.rules
    engine = Engine(book_of(breaking(leak, 50), dark))

    def say(ts: int, **fields: float | bool) -> list[tuple[str, str]]:
        reading = Reading("here.pile", "charger", "", 10**12 + ts, 10**12 + ts, None, fields)
        return [(one.effect, one.state.rule_id) for one in engine.observe(Batch((reading,))) if one.effect != "none"]

    assert say(0, leakage_ma=40, mains=True) == [("raise", "leak")]
    assert engine.troubles == {}
    assert say(1, leakage_ma=60, mains=False) == [("raise", "dark")]
    assert engine.troubles == {"leak": "_Broken: on purpose (here.pile)"}
    assert say(2, leakage_ma=10) == [("clear", "leak")]


@pytest.mark.parametrize(
    ("when", "told"),
    [
        (" and ".join(["mains"] * 2_000), "longer than 1000"),
        ("(" * 200 + "mains" + ")" * 200, "deep"),
        (" or ".join(f"avg(leakage_ma, {n}m) > 1" for n in range(1, 31)), "cost"),
        ("avg(leakage_ma, 31d) > 1", "30d"),
    ],
)
def test_a_costly_rule_is_refused_when_the_file_is_read(when: str, told: str):
    with pytest.raises(RuleError, match=told) as refused:
        parse_rules(f"{HEAD}  - {{id: leak, group: leak, {TITLE}, when: '{when}'}}\n", "my.yaml")
    assert str(refused.value).startswith("my.yaml:3:")
