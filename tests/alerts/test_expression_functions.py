"""Functions of conditions: results, what they ask the engine for, when they wake, and their errors."""

from __future__ import annotations

from typing import Any

import pytest

from alerts.expression import MAX_COST, Condition, Param, compile_condition
from core.errors import ExpressionError
from core.reading import Value
from tests.alerts.scopes import FAULTS, FIELDS, PORTS, World, tracks_of

PARAMS = {
    "hold": Param(90.0, "s"),
    "often": Param(3, ""),
    "fault": Param("smoke", ""),
    "night": Param("22:00", ""),
    "on": Param(True, ""),
    "x": Param(7.0, ""),
    "huge": Param(10**400, ""),
    "nan": Param(float("nan"), "s"),
}
NOW = 1_000_000


def compiled(text: str) -> Condition:
    return compile_condition(text, FIELDS, FAULTS, params=PARAMS, ports=PORTS)


@pytest.mark.parametrize(
    ("text", "updated", "expected", "wakes"),
    [
        ("age(a) > 90s", NOW - 90_000, False, NOW + 1),
        ("age(a) > 90s", NOW - 90_001, True, None),
        ("age(a) >= 90s", NOW - 90_000, True, None),
        ("age(a) >= 90s", NOW - 80_000, False, NOW + 10_000),
        ("age(a) >= hold", NOW - 80_000, False, NOW + 10_000),
        ("age(a) >= 90", NOW - 80_000, False, NOW + 10_000),
        ("age(a) < 70ms", NOW, True, NOW + 70),
        ("age(a) <= 70ms", NOW, True, NOW + 71),
        ("age(a) == 70ms", NOW, False, NOW + 70),
        ("age(a) == 70ms", NOW - 70, True, NOW + 1),
        ("age(a) != 70ms", NOW - 71, True, None),
        ("90s < age(a)", NOW - 80_000, False, NOW + 10_001),
        ("not (age(a) > 1m + 30s)", NOW - 80_000, True, NOW + 10_001),
        ("age(a) > 90s", None, None, None),
        ("age(a) > 90s", NOW + 5_000, False, NOW + 95_001),
        ("age(a) >= -1s", NOW, True, None),
        ("absent(90s)", NOW - 90_000, True, None),
        ("absent(hold)", NOW - 89_999, False, NOW + 1),
        ("absent(90s)", None, None, None),
        ("known(a)", NOW, True, NOW + FIELDS["a"].stale_ms + 1),
        ("known(brief)", NOW - 60_000, True, NOW + 1),
        ("known(brief)", NOW - 60_001, False, None),
        ("coalesce(brief, false)", NOW - 60_000, True, NOW + 1),
        ("coalesce(brief, false)", NOW - 60_001, False, None),
        ("coalesce(brief, on)", None, True, None),
    ],
)
def test_time_alone(text: str, updated: int | None, expected: bool | None, wakes: int | None):
    values: dict[str, tuple[Value, int]] = {} if updated is None else {"a": (True, updated), "brief": (True, updated)}
    world = World(values, now=NOW, heard=updated)
    condition = compiled(text)
    assert condition.evaluate(world) is expected
    assert condition.wakes is not None
    assert condition.wakes(world) == wakes
    assert not condition.plain
    if wakes is not None:
        assert condition.evaluate(world.at(wakes - 1)) is expected
        assert condition.evaluate(world.at(wakes)) is not expected


SAMPLES: dict[str, list[tuple[int, Value]]] = {
    "temp_c": [(NOW - 300_001, 99.0), (NOW - 300_000, 50.0), (NOW - 120_000, 60.0), (NOW - 1, 70.0), (NOW + 1, 10.0)],
    "trips": [(NOW - 200_000, 10), (NOW - 100_000, 20), (NOW - 50_000, 3), (NOW, 8)],
    "door": [(NOW - 900_000, "closed"), (NOW - 800_000, "open"), (NOW - 100_000, "open"), (NOW - 50_000, "closed")],
    "a": [(NOW - 4, True), (NOW - 3, False), (NOW - 2, True), (NOW - 1, True)],
    'count(door == "open")': [(NOW - 400_000, 1), (NOW - 100_000, 1), (NOW - 50_000, 1)],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("avg(temp_c, 5m) == 65C", True),
        ("avg(temp_c, 301s) == 69.75", True),
        ("min(temp_c, 5m) == 60", True),
        ("max(temp_c, 5m) == 70", True),
        ("sum(temp_c, 5m) == 130C", True),
        ("stddev(temp_c, 5m) > 7.07C and stddev(temp_c, 5m) < 7.08C", True),
        ("delta(temp_c, 5m) == 10", True),
        ("delta(temp_c, 1m) == 0", None),
        ("temp_c > 1.2 * avg(temp_c, 5m)", None),
        ("delta(trips, 5m) == -2", True),
        ("rate(trips, 5m) * 200s == 18", True),
        ("rate(trips, 1s) > 0", None),
        ("changes(trips, 5m) == 3", True),
        ("changes(door, 3m) == 1", True),
        ("changes(door, 20m) == 2", True),
        ("samples(door, 3m) == 2", True),
        ("samples(door, 1s) == 0", True),
        ("avg(a, 1s) == 0.75", True),
        ("changes(a, 10s) == 2", True),
        ('count(door == "open", 5m) == 2', True),
        ('count(door == "open", 7m) >= often', True),
        ("count(a and not b, 5m) == 0", True),
        ("samples(temp_c, hold) == 1", True),
        ("abs(delta(trips, 5m)) == 2", True),
        ("coalesce(avg(temp_c, 1s), 0C) == 70", True),
        ("coalesce(delta(temp_c, 1s), 3C) == 3", True),
    ],
)
def test_windows(text: str, expected: bool | None):
    condition = compiled(text)
    world = World({}, now=NOW, tracks=tracks_of(condition, SAMPLES))
    assert condition.evaluate(world) is expected
    assert condition.evaluate(World({}, now=NOW)) in (None, text.startswith("coalesce(delta"))
    assert not condition.plain


def test_a_window_wakes_when_its_oldest_sample_leaves():
    condition = compiled("avg(temp_c, 5m) > 1 or max(trips, 3m) > 5")
    world = World({}, now=NOW + 10, tracks=tracks_of(condition, SAMPLES))
    assert condition.wakes is not None
    assert condition.wakes(world) == NOW - 100_000 + 180_000
    assert condition.wakes(World({}, now=NOW)) is None


@pytest.mark.parametrize(
    ("text", "key", "field", "keep_ms", "step_ms"),
    [
        ("avg(temp_c, 5m) > 1", "temp_c", "temp_c", 300_000, 0),
        ("avg(temp_c, 5m) > min(temp_c, 10m)", "temp_c", "temp_c", 600_000, 0),
        ("avg(temp_c, 1h) > 1", "temp_c per 5m", "temp_c", 3_900_000, 300_000),
        ("changes(door, 7d) > 1", "door per 14h", "door", 655_200_000, 50_400_000),
        ("count(a, 5m) > 1", "count(a)", None, 300_000, 0),
        ("count(not a or n > x, 1h) > 1", "count((not a) or (n > 7)) per 5m", None, 3_900_000, 300_000),
    ],
)
def test_which_samples_are_kept(text: str, key: str, field: str | None, keep_ms: int, step_ms: int):
    (series,) = compiled(text).series
    assert (series.key, series.field, series.keep_ms, series.step_ms) == (key, field, keep_ms, step_ms)
    assert (series.counted is None) == (field is not None)


def test_the_same_counted_condition_written_otherwise_is_one_series():
    one, two = compiled("count(a and (b and n > 3), 5m) > 1"), compiled("count( (a) and b  and n>3.0, 4m) > 2")
    assert one.series[0].key == two.series[0].key
    counted = one.series[0].counted
    assert counted is not None
    assert counted.plain
    assert counted.fields == {"a", "b", "n"}
    assert one.fields == {"a", "b", "n"}
    assert counted.evaluate(World({"a": (True, 0), "b": (True, 0), "n": (4, 0)})) is True


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("temp_c > avg_ports(temp_c) + 20", [30.0, 50.0], True),
        ("temp_c > max_ports(temp_c)", [30.0, 50.0], True),
        ("min_ports(temp_c) == 30C", [30, 50.0], True),
        ("avg_ports(a) == 0.5", [True, False], True),
        ("avg_ports(temp_c) > 0", [], None),
        ("avg_ports(temp_c) > 0", ["warm"], None),
        ("avg_ports(temp_c) > 0", [float("inf")], None),
    ],
)
def test_other_ports(text: str, values: list[Value], expected: bool | None):
    condition = compiled(text)
    name = "a" if "(a)" in text else "temp_c"
    assert condition.evaluate(World({"temp_c": (80.0, 0)}, ports={name: values})) is expected
    assert condition.siblings == condition.fields == {name}
    assert not condition.plain


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        ("abs(n) == 3", {"n": -3}, True),
        ("abs(n - 5) == 8", {"n": -3}, True),
        ("abs(n) == 3", {}, None),
        ("coalesce(n, 3) == 3", {}, True),
        ("coalesce(n + 1, 3) == 3", {"n": 2}, True),
        ("coalesce(label, 'none') == 'none'", {}, True),
        ("coalesce(device.floors, 6) == 6", {}, True),
        ("x == 7", {}, True),
        ("n < x", {"n": 3}, True),
        ("on and a", {"a": True}, True),
        ("active(fault)", {}, True),
        ("known(x)", {"x": 1.0}, True),
        ("n * 1" + "0" * 300 + " * 1" + "0" * 300 + " > 1", {"n": 3}, None),
        ("n * 1" + "0" * 300 + " > 1", {"n": 3}, True),
    ],
)
def test_numbers_and_parameters(text: str, fields: dict[str, Value], expected: bool | None):
    world = World({name: (value, 0) for name, value in fields.items()}, faults=frozenset({"smoke"}))
    assert compiled(text).evaluate(world) is expected


@pytest.mark.parametrize("word", ["); print(1", "{0}", "k0", "scope", "None", "\n", "__import__", "\ud800"])
def test_words_of_the_rule_are_never_words_of_the_program(word: str):
    quoted = f"'{word}'" if '"' in word else f'"{word}"'
    condition = compiled(f"label == {quoted} and x > 3 or device.k0 == {quoted}")
    program = condition.evaluate.__code__
    assert not {word, "print"} & {*program.co_names, *program.co_varnames, *program.co_consts} - {"scope", "k0", None}
    assert condition.evaluate(World({"label": (word, 0)})) is True
    assert condition.evaluate(World({"label": ("other", 0)}, statics={"k0": word})) is True


def test_a_plain_condition_says_so():
    condition = compiled(
        '(n > x and not a) or active("heat") or door == "open" or n == device.floors or known(device.b)'
    )
    assert condition.plain
    assert condition.wakes is None
    assert condition.series == ()
    assert condition.fields == {"n", "a", "door"}
    assert condition.faults == {"heat"}
    assert 10 < condition.cost < 30


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("age(a)", 1, "only be compared with a duration"),
        ("age(a) > n", 10, "only be compared with a duration"),
        ("age(a) > age(b)", 10, "only be compared with a duration"),
        ("age(a) > 5W", 10, "only be compared with a duration"),
        ("age(a) + 1s > 5s", 1, "only be compared with a duration"),
        ("age(a) > on", 10, "only be compared with a duration"),
        ("not age(a)", 5, "only be compared with a duration"),
        ("abs(age(a)) > 5s", 5, "only be compared with a duration"),
        ("coalesce(age(a), 5s) > 1", 10, "only be compared with a duration"),
        ("age(device.floors) > 5s", 5, "unknown field 'device.floors'"),
        ("age(agee) > 5s", 5, "unknown field 'agee'"),
        ("absent(5)", 8, "needs a duration here, such as 5m"),
        ("absent(n)", 8, "needs a duration"),
        ("absent(0s)", 8, "a duration from 1ms to 365d"),
        ("avg(n) > 1", 6, "avg() takes 2: ',' is missing"),
        ("avg(n, 5) > 1", 8, "needs a duration"),
        ("avg(n, often) > 1", 8, "needs a duration"),
        ("avg(n, 500ms) > 1", 8, "a duration from 1s to 30d"),
        ("avg(n, 31d) > 1", 8, "a duration from 1s to 30d"),
        ("avg(n, -5m) > 1", 8, "a duration from 1s to 30d"),
        ("avg(n + 1, 5m) > 1", 7, "',' is missing"),
        ("avg(label, 5m) > 1", 5, "a number was expected here, this is a text"),
        ("avg(n, 5m, 3) > 1", 10, "')' is missing"),
        ("count(n, 5m) > 1", 7, "a bool was expected"),
        ("count(known(a), 5m) > 1", 7, "counts plain conditions"),
        ("count(count(a, 5m) > 1, 5m) > 1", 7, "counts plain conditions"),
        ("count(hour() > 1, 5m) > 1", 7, "counts plain conditions"),
        ("count(a, 5m)", 1, "a condition must be true or false, this is a number"),
        ("hour(1) > 1", 6, "')' is missing"),
        ("hour() and a", 1, "a bool was expected"),
        ('between("22:00", "25:00")', 18, 'such as "22:00"'),
        ('between("24:00", "06:00")', 9, 'such as "22:00"'),
        ("between(22, 6)", 9, 'such as "22:00"'),
        ('between("6:00", "06:00")', 1, "two different times"),
        ('between("00:00", "24:00")', 1, "two different times"),
        ("avg_ports(n) > 1", 11, "unknown field 'n'"),
        ("avg_ports(tempc) > 1", 11, "did you mean 'temp_c'?"),
        ("avg_ports(label) > 1", 1, "needs a number"),
        ("abs(a) > 1", 5, "a number was expected"),
        ("coalesce(n, n) > 1", 13, "needs a constant here"),
        ("coalesce(n, 'a') > 1", 13, "a number was expected here, this is a text"),
        ("coalesce(a, 1)", 13, "a bool was expected here, this is a number"),
        ("n > huge", 5, "the value of 'huge' is too large"),
        ("n > nan", 5, "the value of 'nan' is no finite number"),
        ("avg(n, nan) > 1", 8, "no finite number"),
        ("aveg(n, 5m) > 1", 1, "did you mean 'avg'?"),
        ("ofte > 1", 1, "did you mean 'often'?"),
        (" or ".join(["max(n, 5m) > 1"] * 40), 1, f"more than {MAX_COST}"),
    ],
)
def test_error(text: str, column: int, reason: str):
    with pytest.raises(ExpressionError) as caught:
        compiled(text)
    assert reason in caught.value.reason
    assert caught.value.column == column


def test_other_ports_can_only_be_asked_by_a_port():
    with pytest.raises(ExpressionError, match=r"avg_ports\(\) works only in rules of a port"):
        compile_condition("avg_ports(temp_c) > 1", FIELDS, FAULTS)


@pytest.mark.parametrize("value", [None, True, 5, 1e308, float("nan"), "warm", 10**400])
def test_values_that_no_contract_allows_are_unknown_and_no_error(value: Any):
    world = World(dict.fromkeys(FIELDS, (value, 0)), now=10**30, statics={"a": value}, heard=-(10**30))
    texts = (
        "x > 1 and a",
        "n * n > 1",
        "abs(n) > 1",
        "-n < 1",
        "door == 'open'",
        "n < device.a",
        "device.a",
        "hour() > 1",
    )
    for text in (*texts, 'between("22:00", "06:00")', "absent(5s)", "age(x) > 5s", "coalesce(n, 1) * 1 > 0"):
        condition = compile_condition(text, FIELDS, FAULTS)
        assert condition.evaluate(world) in (None, True, False)
        assert condition.wakes is None or isinstance(condition.wakes(world), int | None)
