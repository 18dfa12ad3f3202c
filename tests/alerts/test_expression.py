"""The language of conditions: results, three-valued logic, and errors that point at the column."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.expression import MAX_DEPTH, MAX_LENGTH, compile_condition
from core.errors import ExpressionError
from core.reading import Value
from tests.alerts.scopes import FAULTS, FIELDS, World


def result(text: str, fields: dict[str, Value], statics: dict[str, Value] | None = None, *active: str) -> bool | None:
    seen = World({name: (value, 0) for name, value in fields.items()}, statics=statics or {}, faults=frozenset(active))
    return compile_condition(text, FIELDS, FAULTS).evaluate(seen)


T: dict[str, Value] = {"a": True}
F: dict[str, Value] = {"a": False}
U: dict[str, Value] = {}


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        ("a", T, True),
        ("a", F, False),
        ("a", U, None),
        ("not a", T, False),
        ("not a", U, None),
        ("not not a", T, True),
        ("a and b", {"a": True, "b": True}, True),
        ("a and b", {"a": False}, False),
        ("b and a", {"a": False}, False),
        ("a and b", {"a": True}, None),
        ("a or b", {"a": True}, True),
        ("b or a", {"a": True}, True),
        ("a or b", {"a": False}, None),
        ("a or b and c", {"a": True, "b": False, "c": False}, True),
        ("(a or b) and c", {"a": True, "b": False, "c": False}, False),
        ("not a or b", {"a": True, "b": True}, True),
        ("not (a or b)", {"a": True, "b": True}, False),
        ("not a == b", {"a": True, "b": False}, True),
        ("known(a)", T, True),
        ("known(a)", U, False),
        ("not (known(a) and a)", U, True),
        ("x > 1", {"x": 1.5}, True),
        ("x > 1", U, None),
        ("x >= 1.5", {"x": 1.5}, True),
        ("x < 1.5", {"x": 1.5}, False),
        ("x <= 1.5", {"x": 1.5}, True),
        ("x != 1.5", {"x": 1.5}, False),
        ("x == n", {"x": 2.0, "n": 2}, True),
        ("x > -1", {"x": 0.0}, True),
        ("-x > 1", {"x": -2.0}, True),
        ("2 + 3 * 4 == 14", U, True),
        ("(2 + 3) * 4 == 20", U, True),
        ("10 - 3 - 2 == 5", U, True),
        ("12 / 3 / 2 == 2", U, True),
        ("x / 0 > 1", {"x": 1.0}, None),
        ("1 / n > 0", {"n": 0}, None),
        ("x - n > 0.25", {"x": 2.5, "n": 2}, True),
        ("door == 'open'", {"door": "open"}, True),
        ('door != "open"', {"door": "closed"}, True),
        ("label == ''", {"label": ""}, True),
        ("label == '困人'", {"label": "困人"}, True),
        ("label == door", {"label": "open", "door": "open"}, True),
        ("true", U, True),
        ("false or a", T, True),
        ("a == true", F, False),
    ],
)
def test_result(text: str, fields: dict[str, Value], expected: bool | None):
    assert result(text, fields) is expected


@pytest.mark.parametrize(
    ("text", "statics", "expected"),
    [
        ("device.fast", {"fast": 5.0}, None),
        ("not device.fast", {"fast": "no"}, None),
        ("a or device.fast", {"fast": 1}, None),
        ("n == device.floors", {"floors": "six"}, None),
        ("n > device.rated", {"rated": True}, None),
        ("n > device.rated", {"rated": float("nan")}, None),
        ("n * device.rated > 1", {"rated": "ab"}, None),
        ("-device.rated < 0", {"rated": "ab"}, None),
        ("-device.rated < 0", {"rated": 2}, True),
        ("abs(device.rated) > 1", {"rated": -2}, True),
        ("device.name == 'north'", {"name": "north"}, True),
        ("device.name > device.other", {"name": "b", "other": "a"}, None),
        ("n == device.floors", {"floors": 6}, True),
        ("n == device.floors", {}, None),
        ("n > 1.2 * device.rated", {"rated": 4.0}, True),
        ("n > device.rated", {"rated": "four"}, None),
        ("device.fast", {"fast": True}, True),
        ("known(device.fast)", {}, False),
        ("n < device.rated", {"rated": 10**400}, True),
        ("n < 0.5 * device.rated", {"rated": 10**400}, None),
    ],
)
def test_facts_of_the_device(text: str, statics: dict[str, Value], expected: bool | None):
    assert result(text, {"n": 6}, statics) is expected


def test_faults_that_stand():
    assert result('active("smoke")', {}, {}, "smoke") is True
    assert result('active("smoke") or a', {}, {}, "heat") is None
    condition = compile_condition('active("smoke") and x > 1 or known(a)', FIELDS, FAULTS)
    assert (set(condition.fields), set(condition.faults)) == ({"x", "a"}, {"smoke"})


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("", 1, "a value was expected, not 'the end'"),
        ("a and", 6, "a value was expected"),
        ("a nd b", 3, "'nd' was not expected here"),
        ("a b", 3, "not expected"),
        ("(a or b", 8, "')' is missing"),
        ("a)", 2, "not expected"),
        ("spede > 1", 1, "unknown field 'spede'"),
        ("labl == 'x'", 1, "did you mean 'label'?"),
        ("x", 1, "a condition must be true or false, this is a number"),
        ("label", 1, "this is a text"),
        ("a and x", 7, "a bool was expected here, this is a number"),
        ("not x", 5, "a bool was expected"),
        ("a + 1 > 2", 1, "a number was expected here, this is a bool"),
        ("x + label > 1", 5, "a number was expected here, this is a text"),
        ("-a", 2, "a number was expected"),
        ("x == 'warm'", 6, "a number cannot be compared with a text"),
        ("label > 'a'", 1, "'>' compares numbers only"),
        ("a < b", 1, "'<' compares numbers only"),
        ("door == 'ajar'", 9, "'ajar' is never sent; one of: closed, open"),
        ("'ajar' == door", 1, "'ajar' is never sent"),
        ("x > 1 > 0", 7, "not expected"),
        ("x > 3s", 5, "a number without a unit cannot be compared with s"),
        ("x > 3and a", 6, "unknown unit 'and'"),
        ("x > 3sec", 6, "unknown unit 'sec'"),
        ("x > " + "9" * 400, 5, "too large"),
        ("x" + " + x" * 120 + " > 1", None, "nested deeper than 100"),
        ("x ; 1", 3, "';' means nothing here"),
        ("x > 1 \u3000&& a", 8, "'&' means nothing here"),
        ("label == 'open", 10, "means nothing here"),
        ("active(smoke)", 8, "needs the name of a fault in quotes"),
        ("active('smok')", 8, "did you mean 'smoke'?"),
        ("knwon(a)", 1, "did you mean 'known'?"),
        ("known(a and b)", 9, "')' is missing"),
        ("known()", 7, "unknown field ')'"),
        ("__import__('os')", 1, "unknown function"),
        ("a.__class__", 1, "unknown field 'a.__class__'"),
        ("x.real > 1", 1, "unknown field 'x.real'"),
        ("a or" + " a or" * MAX_LENGTH, MAX_LENGTH, "longer than"),
        ("(" * (MAX_DEPTH + 1) + "a", MAX_DEPTH + 2, "nested deeper"),
        ("not " * (MAX_DEPTH + 2) + "a", None, "nested deeper"),
    ],
)
def test_error(text: str, column: int | None, reason: str):
    with pytest.raises(ExpressionError) as caught:
        compile_condition(text, FIELDS, FAULTS)
    assert reason in caught.value.reason
    assert column in (None, caught.value.column)
    assert "\n" not in str(caught.value)


def test_the_longest_and_deepest_still_run():
    longest = " or ".join(["a"] * ((MAX_LENGTH + 4) // 5))
    assert len(longest) <= MAX_LENGTH
    assert result(longest, F) is False
    assert result("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH, T) is True


# --- random trees against a naive evaluator of Kleene's logic: true=1, unknown=1/2, false=0 --------------------------

Naive = Callable[[dict[str, Value]], float]
Tree = tuple[str, Naive]
_LEVEL = {None: 0.5, True: 1.0, False: 0.0}


def _number(name: str, sign: str, limit: int) -> Tree:
    text = f"{name} {sign} {limit}"

    def naive(values: dict[str, Value]) -> float:
        if name not in values:
            return 0.5
        value = float(values[name])
        return float({"<": value < limit, ">=": value >= limit, "==": value == limit}[sign])

    return text, naive


leaves: st.SearchStrategy[Tree] = st.one_of(
    st.sampled_from(["a", "b", "c"]).map(lambda name: (name, lambda values: _LEVEL[values.get(name)])),
    st.sampled_from(["a", "x"]).map(lambda name: (f"known({name})", lambda values: float(name in values))),
    st.builds(_number, st.sampled_from(["x", "n"]), st.sampled_from(["<", ">=", "=="]), st.integers(0, 2)),
)


def _grown(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.one_of(
        children.map(lambda one: (f"not ({one[0]})", lambda values: 1 - one[1](values))),
        st.tuples(children, children).map(
            lambda two: (f"({two[0][0]}) and ({two[1][0]})", lambda values: min(two[0][1](values), two[1][1](values)))
        ),
        st.tuples(children, children).map(
            lambda two: (f"({two[0][0]}) or ({two[1][0]})", lambda values: max(two[0][1](values), two[1][1](values)))
        ),
    )


values_of = st.fixed_dictionaries(
    {},
    optional={
        "a": st.booleans(),
        "b": st.booleans(),
        "c": st.booleans(),
        "x": st.sampled_from([0.0, 1.0, 2.0]),
        "n": st.integers(0, 2),
    },
)


@given(st.recursive(leaves, _grown, max_leaves=12).filter(lambda tree: len(tree[0]) <= MAX_LENGTH), values_of)
def test_random_trees_agree_with_kleene(tree: Tree, values: dict[str, Value]):
    text, naive = tree
    assert _LEVEL[result(text, values)] == naive(values)


@given(st.text(alphabet="abxn()'\"<>=!+-*/., notadrky01.5", max_size=60))
def test_any_text_is_compiled_or_refused_with_a_column(text: str):
    column: int | None = None
    outcome: bool | None = None
    try:
        outcome = result(text, {"a": True, "x": 1.0, "n": 3})
    except ExpressionError as error:
        column = error.column
    assert outcome in (True, False, None)
    assert column is None or 1 <= column <= len(text) + 1
