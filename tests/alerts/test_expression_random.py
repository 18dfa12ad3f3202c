"""Random conditions against a slow interpreter of the same tree, their waking, and text that means harm.

A tree is plain data: `("and", tree, tree)`. It is written as text for the compiler, and worked out here by the book.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from alerts.expression import MAX_COST, MAX_LENGTH, Param, compile_condition
from core.errors import ExpressionError
from core.reading import Value
from tests.alerts.scopes import FAULTS, FIELDS, LONG_MS, PORTS, World, tracks_of

Tree = tuple[Any, ...]
Samples = dict[str, list[tuple[int, Value]]]

PARAMS = {"hold": Param(4.0, "s"), "three": Param(3, "")}
SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
ORDERS = ("==", "!=", "<", "<=", ">", ">=")
WINDOWS = ("avg", "min", "max", "sum", "delta", "changes", "samples")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# --- trees ---------------------------------------------------------------------------------------------------------

signs = st.sampled_from(ORDERS)
limits = st.sampled_from([0, 1, 2, 3, 5])
numbers = st.recursive(
    st.one_of(
        limits.map(lambda limit: ("number", limit)),
        st.sampled_from(["x", "n"]).map(lambda name: ("field", name)),
        st.sampled_from(["floors", "odd"]).map(lambda name: ("fact", name)),
        st.just(("three",)),
    ),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("+-*/"), inner, inner),
        inner.map(lambda one: ("minus", one)),
        inner.map(lambda one: ("abs", one)),
        st.tuples(st.just("coalesce"), inner, limits),
    ),
    max_leaves=4,
)
values = st.one_of(
    st.sampled_from(["a", "b", "brief"]).map(lambda name: ("field", name)),
    st.booleans().map(lambda value: ("truth", value)),
    st.sampled_from(sorted(FAULTS)).map(lambda fault: ("active", fault)),
    st.tuples(signs, numbers, numbers),
    st.tuples(st.sampled_from(["==", "!="]), st.just(("field", "door")), st.just(("text", "open"))),
)
durations = st.integers(1, 9).map(lambda seconds: seconds * 1_000)
timed = st.one_of(
    st.sampled_from(["a", "brief", "x"]).map(lambda name: ("known", name)),
    st.tuples(st.just("age"), signs, st.sampled_from(["a", "x"]), durations),
    durations.map(lambda ms: ("absent", ms)),
    st.tuples(signs, st.tuples(st.sampled_from(WINDOWS), st.sampled_from(["x", "a"]), durations), numbers),
    st.tuples(
        signs, st.tuples(st.just("count"), st.just(("field", "a")), durations), limits.map(lambda n: ("number", n))
    ),
    st.tuples(signs, st.sampled_from(["hour", "minute", "weekday", "day", "month"]).map(lambda f: (f,)), numbers),
    st.tuples(st.just("between"), st.integers(0, 1_439), st.integers(0, 1_439)).filter(lambda one: one[1] != one[2]),
    st.tuples(signs, st.sampled_from([("avg_ports",), ("max_ports",)]), numbers),
)


def grown(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.one_of(
        inner.map(lambda one: ("not", one)),
        st.tuples(st.sampled_from(["and", "or"]), inner, inner),
        st.tuples(st.sampled_from(["and", "or"]), inner, inner, inner),
        st.tuples(st.sampled_from(["==", "!="]), inner, inner),
    )


trees = st.recursive(st.one_of(values, timed), grown, max_leaves=8)
time_trees = st.recursive(timed, grown, max_leaves=4)


def written(tree: Tree) -> str:  # noqa: C901, PLR0911, PLR0912 # one line for each kind of part
    match tree:
        case ("number", value):
            return str(value)
        case ("truth", value):
            return str(value).lower()
        case ("text", value):
            return f'"{value}"'
        case ("three",):
            return "three"
        case ("field", name):
            return str(name)
        case ("fact", name):
            return f"device.{name}"
        case ("active", fault):
            return f"active('{fault}')"
        case ("known", name):
            return f"known({name})"
        case ("age", sign, name, ms):
            return f"age({name}) {sign} {ms}ms"
        case ("absent", ms):
            return f"absent({ms // 1000}s)"
        case ("between", start, end):
            return f'between("{start // 60}:{start % 60:02}", "{end // 60}:{end % 60:02}")'
        case ("avg_ports" | "max_ports" as name,):
            return f"{name}(trips)"
        case (name,):
            return f"{name}()"
        case ("minus", inner):
            return f"-({written(inner)})"
        case ("not", inner):
            return f"not ({written(inner)})"
        case ("abs", inner):
            return f"abs({written(inner)})"
        case ("coalesce", inner, instead):
            return f"coalesce({written(inner)}, {instead})"
        case ("count", inner, ms):
            return f"count({written(inner)}, {ms}ms)"
        case (name, str(field), ms):
            return f"{name}({field}, {ms}ms)"
        case (word, *parts):
            return f" {word} ".join(f"({written(part)})" for part in parts)
    raise AssertionError(tree)


# --- the slow interpreter ------------------------------------------------------------------------------------------


class Reference:
    """Works a tree out over a world, its samples and its instant."""

    def __init__(self, world: World, samples: Samples) -> None:
        self.world, self.samples = world, samples
        self.wall = (EPOCH + timedelta(milliseconds=world.now)).astimezone(world.zone)

    def of(self, tree: Tree) -> Any:  # noqa: C901, PLR0911, PLR0912 # one line for each kind of part
        world = self.world
        match tree:
            case ("number" | "truth" | "text", value):
                return value
            case ("three",):
                return 3
            case ("field", name):
                return world.field(name)
            case ("fact", name):
                known = world.static(name)
                return None if known == math.inf else known
            case ("active", fault):
                return world.active(fault)
            case ("known", name):
                return world.field(name) is not None
            case ("age", sign, name, ms):
                updated = world.updated(name)
                return None if updated is None else SIGNS[sign](max(world.now - updated, 0), ms)
            case ("absent", ms):
                heard = world.heard()
                return None if heard is None else world.now - heard >= ms
            case ("between", start, end):
                minute = self.wall.hour * 60 + self.wall.minute
                return start <= minute < end if start < end else not end <= minute < start
            case ("avg_ports" | "max_ports" as name,):
                ports: Any = world.siblings("trips")
                return (sum(ports) / len(ports) if name == "avg_ports" else max(ports)) if ports else None
            case ("weekday",):
                return self.wall.isoweekday()
            case (name,):
                return getattr(self.wall, name)
            case ("minus" | "abs" as name, inner):
                value = self.number(inner)
                return None if value is None else -value if name == "minus" else abs(value)
            case ("not", inner):
                value = self.of(inner)
                return None if value is None else not value
            case ("coalesce", inner, instead):
                value = self.of(inner)
                return instead if value is None else value
            case ("count", inner, ms):
                return self.window("samples", f"count({written(inner)})", ms)
            case (name, str(field), ms):
                return self.window(name, field, ms)
            case ("and", *parts):
                values = [self.of(part) for part in parts]
                return False if False in values else None if None in values else True
            case ("or", *parts):
                values = [self.of(part) for part in parts]
                return True if True in values else None if None in values else False
            case (sign, left, right):
                return self.two(sign, left, right)
        raise AssertionError(tree)

    def two(self, sign: str, left: Tree, right: Tree) -> Any:
        one, two = self.of(left), self.of(right)
        if one is None or two is None:
            return None
        unlike = {bool: "bool", str: "text"}.get(type(one)) != {bool: "bool", str: "text"}.get(type(two))
        if unlike or (sign not in ("==", "!=") and isinstance(one, bool | str)):
            return None
        try:
            found = SIGNS[sign](one, two)
        except (ArithmeticError, TypeError):
            return None
        return found if math.isfinite(found) else None

    def number(self, tree: Tree) -> Any:
        value = self.of(tree)
        return None if isinstance(value, bool | str) else value

    def window(self, name: str, key: str, ms: int) -> Any:
        if key not in self.samples:
            return None
        kept = sorted(dict(self.samples[key]).items())
        seen = [float(value) for ts, value in kept if self.world.now - ms < ts <= self.world.now]
        before = [float(value) for ts, value in kept if ts <= self.world.now - ms][-1:]
        if name == "changes":
            return sum(one != two for one, two in pairwise(before + seen)) if seen else 0
        if name == "samples":
            return len(seen)
        if len(seen) < (2 if name == "delta" else 1):
            return None
        total = math.fsum(seen)
        return {
            "avg": total / len(seen),
            "sum": total,
            "min": min(seen),
            "max": max(seen),
            "delta": seen[-1] - seen[0],
        }[name]


# --- worlds --------------------------------------------------------------------------------------------------------

NOWS = st.one_of(
    st.integers(-20_000, 20_000),
    st.integers(-20_000, 20_000).map(lambda ms: 1_774_746_000_000 + ms),  # Berlin, 2026-03-29, forward
    st.integers(-7_200_000, 7_200_000).map(lambda ms: 1_792_890_000_000 + ms),  # Berlin, 2026-10-25, back
)
quarters = st.integers(-8, 40).map(lambda n: n / 4)
FACTS: list[dict[str, Value]] = [
    {},
    {"floors": 3},
    {"floors": 2.5, "odd": "six"},
    {"floors": True, "odd": math.inf},
]
VALUES: dict[str, st.SearchStrategy[Value]] = {
    "a": st.booleans(),
    "b": st.booleans(),
    "brief": st.booleans(),
    "x": quarters,
    "n": st.integers(0, 3),
    "door": st.sampled_from(["open", "closed"]),
}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[World, Samples]:
    now = draw(NOWS)
    ago = st.one_of(st.integers(-2_000, 12_000), st.integers(55_000, 65_000), st.just(LONG_MS - 3_000))
    seen = {}
    for name, of in VALUES.items():
        if draw(st.booleans()):
            seen[name] = (draw(of), now - draw(ago))
    near = st.integers(-12_000, 3_000).map(lambda ms: now + ms)
    samples: Samples = {}
    for key, of in (("x", VALUES["x"]), ("a", VALUES["a"]), ("count(a)", st.just(1))):
        if draw(st.booleans()):
            samples[key] = draw(st.lists(st.tuples(near, of), max_size=6))
    world = World(
        seen,
        now=now,
        zone=ZoneInfo(draw(st.sampled_from(["Europe/Berlin", "Asia/Shanghai", "Australia/Lord_Howe"]))),
        statics=draw(st.sampled_from(FACTS)),
        faults=draw(st.sampled_from([frozenset(), frozenset({"smoke"})])),
        heard=draw(st.one_of(st.none(), near)),
        ports=draw(st.sampled_from([{}, {"trips": [1.0, 3.0]}])),
    )
    return world, samples


def compiled(tree: Tree) -> Any:
    return compile_condition(written(tree), FIELDS, FAULTS, params=PARAMS, ports=PORTS)


def short(tree: Tree) -> bool:
    return len(written(tree)) <= MAX_LENGTH


def with_tracks(condition: Any, world: World, samples: Samples) -> World:
    tracks = tracks_of(condition, samples)
    world.tracks = {one.key: tracks[one.key] for one in condition.series if (one.field or one.key) in samples}
    return world


@given(trees.filter(short), worlds())
def test_a_compiled_condition_says_what_the_book_says(tree: Tree, given_world: tuple[World, Samples]):
    world, samples = given_world
    condition = compiled(tree)
    assert condition.evaluate(with_tracks(condition, world, samples)) is Reference(world, samples).of(tree)


@given(trees.filter(short), worlds())
def test_a_plain_condition_has_nothing_of_time(tree: Tree, given_world: tuple[World, Samples]):
    world, _samples = given_world
    condition = compiled(tree)
    assert condition.plain == (condition.wakes is None and not condition.siblings)
    if condition.plain:
        assert condition.series == ()
        asked = World({name: world.values[name] for name in world.values if name in condition.fields}, now=world.now)
        asked = World(asked.values, now=world.now, statics=world._statics, faults=world._faults)
        assert condition.evaluate(asked) is condition.evaluate(world)
    assert 1 <= condition.cost <= MAX_COST


@given(st.one_of(time_trees, trees).filter(short), worlds(), st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_nothing_changes_by_time_alone_before_the_condition_wakes(
    tree: Tree, given_world: tuple[World, Samples], shares: list[float]
):
    world, samples = given_world
    condition = compiled(tree)
    with_tracks(condition, world, samples)
    before, wakes = condition.evaluate(world), None if condition.wakes is None else condition.wakes(world)
    assert wakes is None or wakes > world.now
    until = world.now + 40 * 86_400_000 if wakes is None else wakes
    near = (world.now + step for step in range(0, min(until - world.now, 12_000), 250))
    for instant in (*near, *(world.now + int((until - 1 - world.now) * share) for share in (*shares, 1))):
        then = world.at(instant)
        went_stale = any(then.stale(name) and not world.stale(name) for name in condition.fields)
        assert condition.evaluate(then) is before or (went_stale and condition.evaluate(then) is None)


WORDS = [
    *FIELDS,
    *(*SIGNS, "and", "or", "not", "(", ")", ",", "true", "5m", "1h", "3", "80C", "20%", "hold", '"open"', "'smoke'"),
    *("device.floors", '"22:00"', '"06:00"', "avg", "count", "age", "absent", "known", "active", "hour", "between"),
    *("coalesce", "abs", "avg_ports", "changes", "rate", "__class__", "lambda", "scope", "k0", "v1", ":=", "\n", "\0"),
]


@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
def test_any_words_are_compiled_or_refused_with_a_column(text: str):
    outcome, column = any_text(text)
    assert outcome in (True, False, None)
    assert column is None or 1 <= column <= len(text) + 1


@given(st.text(max_size=80))
def test_any_text_is_compiled_or_refused_with_a_column(text: str):
    outcome, column = any_text(text)
    assert outcome in (True, False, None)
    assert column is None or 1 <= column <= len(text) + 1


def any_text(text: str) -> tuple[bool | None, int | None]:
    try:
        condition = compile_condition(text, FIELDS, FAULTS, params=PARAMS, ports=PORTS)
    except ExpressionError as error:
        return None, error.column
    world = World({"a": (True, 0), "x": (1.0, 0), "n": (3, 0)}, statics={"floors": 3})
    assert condition.wakes is None or isinstance(condition.wakes(world), int | None)
    return condition.evaluate(world), None


def test_the_widest_and_the_deepest_that_are_allowed_still_compile_and_run():
    world = World({"a": (True, 0), "x": (1.0, 0), "n": (1, 0)})
    nested = "a"
    for index in range(39):
        nested = f"({nested} {'and' if index % 2 else 'or'} a)"
    signed = "(" * 40 + "n" + " + n)" * 40 + " > 1"
    towers = "not (" * 19 + "a == (" * 1 + "a" + ")" * 20
    for text in (
        nested,
        signed,
        towers,
        "a or " * 199 + "a",
        "x" + " + x" * 98 + " > 1",
        "-" + "(-" * 39 + "x" + ")" * 39 + " < 1",
    ):
        assert compile_condition(text, FIELDS, FAULTS).evaluate(world) in (True, False)
