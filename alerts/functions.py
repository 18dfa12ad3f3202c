"""The functions of conditions. A new one: what it takes, what it makes of that, and one line in FUNCTIONS.

Arguments arrive checked: `field` a field's node, `value` a field or a fact, `fault` its name, `window` and `duration`
milliseconds, `condition` a tree, `port` the declaration of a port's field, `start` and `end` minutes of the day,
`number` and `constant` nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from alerts.build import condition_of
from alerts.condition import Scope, Series, Wakes
from alerts.syntax import ORDER, Node, constant, in_unit, node_of, walk, want
from alerts.units import NONE, Unit, fit, product_unit, sum_unit, unit_of, written
from alerts.walltime import DAY_MIN, FACES, Face, between, next_change, shown
from alerts.windows import Track, keep_ms, step_ms
from core.errors import ExpressionError
from core.fields import FieldSpec

WINDOW_COST: Final = 20
SIBLINGS_COST: Final = 10
SECOND: Final = unit_of("s")

_BROKEN: Final = (TypeError, ValueError, ArithmeticError)


class Function(NamedTuple):
    """What a function takes, and how its node is made of its name, its column and that."""

    takes: tuple[str, ...]
    make: Callable[..., Node]


class _Window(NamedTuple):
    """A question to a track, the unit of its answer by that of the field, and whether text can be asked."""

    ask: Callable[[Track, int, int], float | None]
    unit: Callable[[Unit | None], Unit | None]
    text: bool = False


def _known(name: str, column: int, value: Node) -> Node:
    stale = value.spec.stale_ms if value.spec else None
    wakes = _stale_edge(str(value.value), stale) if stale is not None else None
    made = node_of("known", "bool", column, f"{name}({value.text})", value)
    return made._replace(plain=stale is None, wakes=wakes, soonest_ms=stale)


def _active(name: str, column: int, fault: str) -> Node:
    return Node("active", "bool", column, f'{name}("{fault}")', value=fault, faults=frozenset({fault}))


def _age(name: str, column: int, field: Node) -> Node:
    return Node("age", "age", column, f"{name}({field.text})", unit=SECOND, value=field.value, fields=field.fields)


def age_comparison(sign: str, left: Node, right: Node) -> Node:
    """`age(field)` compared with a constant duration; the age of a value from the future is 0."""
    turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
    age, limit, sign = (left, right, sign) if left.type == "age" else (right, left, turned.get(sign, sign))
    limit = in_unit(limit, SECOND)
    if limit.op != "constant" or not isinstance(limit.value, float) or not fit(limit.unit, SECOND):
        raise ExpressionError("age() can only be compared with a duration, as in age(field) > 5m", limit.column)
    name, limit_ms, order = str(age.value), round(limit.value * 1_000, 6), ORDER[sign]

    def run(scope: Scope) -> bool | None:
        updated = scope.updated(name)
        return None if updated is None else order(max(scope.now - updated, 0), limit_ms)

    def wakes(scope: Scope) -> int | None:
        updated, verdict = scope.updated(name), run(scope)
        if updated is None:
            return None
        later = sorted({updated + math.ceil(limit_ms), updated + math.floor(limit_ms) + 1})
        flips = (ts for ts in later if ts > scope.now and order(max(ts - updated, 0), limit_ms) is not verdict)
        return next(flips, None)

    text = f"{age.text} {sign} {limit.text}"
    made = Node("call", "bool", left.column, text, run=run, wakes=wakes, fields=age.fields)
    grows = sign in (">", ">=")
    return made._replace(plain=False, weight=3, soonest_ms=math.floor(limit_ms), ages=True, grows=grows)


def _absent(name: str, column: int, limit_ms: int) -> Node:
    def run(scope: Scope) -> bool | None:
        heard = scope.heard()
        return None if heard is None else scope.now - heard >= limit_ms

    def wakes(scope: Scope) -> int | None:
        heard = scope.heard()
        return None if heard is None else heard + limit_ms

    return _timed("bool", column, f"{name}({written(limit_ms)})", run, wakes)._replace(soonest_ms=limit_ms)


def _window(name: str, column: int, field: Node, window_ms: int) -> Node:
    ask, unit, text = _WINDOWS[name]
    if not text:
        _countable(field)
    series = Series(_resolution(field.text, window_ms), str(field.value), None, keep_ms(window_ms), step_ms(window_ms))
    made = _over(series, ask, window_ms, column, f"{name}({field.text}, {written(window_ms)})")
    return made._replace(unit=unit(field.unit), fields=field.fields)


def _count(name: str, column: int, counted: Node, window_ms: int) -> Node:
    want("bool", counted)
    condition = condition_of(counted.text, counted)
    if not condition.plain:
        raise ExpressionError("count() counts plain conditions: no time, window, neighbour or known()", counted.column)
    key = _resolution(f"{name}({counted.text})", window_ms)
    series = Series(key, None, condition, keep_ms(window_ms), step_ms(window_ms))
    made = _over(series, _WINDOWS["samples"].ask, window_ms, column, f"{name}({counted.text}, {written(window_ms)})")
    return made._replace(fields=condition.fields, faults=condition.faults, weight=WINDOW_COST + condition.cost)


def _over(series: Series, ask: Callable[..., float | None], window_ms: int, column: int, text: str) -> Node:
    key = series.key

    def run(scope: Scope) -> float | None:
        track = scope.track(key)
        if track is None:
            return None
        try:
            found = ask(track, scope.now, window_ms)
        except _BROKEN:
            return None
        return found if found is None or math.isfinite(found) else None

    def wakes(scope: Scope) -> int | None:
        track = scope.track(key)
        return None if track is None else track.oldest_leaving(scope.now, window_ms)

    made = _timed("number", column, text, run, wakes)
    return made._replace(series=series, weight=WINDOW_COST, soonest_ms=window_ms)


def _calendar(name: str, column: int) -> Node:
    return _face(FACES[name], "number", column, f"{name}()", lambda value: value)


def _between(name: str, column: int, start: int, end: int) -> Node:
    if start == end % DAY_MIN:  # it would hold always, or never, and the wall would never show anything else
        raise ExpressionError("between() needs two different times", column)
    text = f'{name}("{start // 60:02}:{start % 60:02}", "{end // 60:02}:{end % 60:02}")'
    return _face(between(start, end), "bool", column, text, bool)


def _face(face: Face, type_name: str, column: int, text: str, cast: Callable[[int], Any]) -> Node:
    def run(scope: Scope) -> Any:
        found = shown(face, scope.now, scope.zone)
        return None if found is None else cast(found)

    return _timed(type_name, column, text, run, lambda scope: next_change(face, scope.now, scope.zone))


def _ports(name: str, column: int, port: FieldSpec) -> Node:
    if port.type is str:
        raise ExpressionError(f"{name}() needs a number, '{port.name}' is a text", column)
    field, ask = port.name, _SIBLINGS[name]

    def run(scope: Scope) -> float | None:
        try:
            found = ask([float(one) for one in scope.siblings(field)])
        except _BROKEN:
            return None
        return found if found is None or math.isfinite(found) else None

    made = Node("call", "number", column, f"{name}({field})", unit=unit_of(port.unit), run=run, sibling=field)
    return made._replace(plain=False, weight=SIBLINGS_COST, fields=frozenset({field}))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _abs(name: str, column: int, number: Node) -> Node:
    want("number", number)
    if isinstance(number.value, float):
        return constant(abs(number.value), column, number.unit)
    return node_of("abs", "number", column, f"{name}({number.text})", number, unit=number.unit)


def _coalesce(name: str, column: int, asked: Node, instead: Node) -> Node:
    """Its first argument, or the constant while that is unknown."""
    if asked.type == "age":
        want("number", asked)
    instead = in_unit(instead, asked.unit)
    if asked.type not in (instead.type, "any"):
        want(asked.type, instead)
    if not fit(asked.unit, instead.unit):
        raise ExpressionError(f"{instead.unit} cannot stand for {asked.unit}", instead.column)
    unit = sum_unit(asked.unit, instead.unit)
    made = node_of("coalesce", asked.type, column, f"{name}({asked.text}, {instead.text})", asked, instead, unit=unit)
    limits = {str(one.value): one.spec.stale_ms for one in walk(asked) if one.spec is not None}
    edges = [_stale_edge(name, stale_ms) for name, stale_ms in limits.items()]
    soonest_ms = min(limits.values(), default=None)
    return made._replace(plain=not edges, wakes=_first(edges) if edges else None, soonest_ms=soonest_ms)


def _countable(field: Node) -> None:
    if field.type not in ("number", "bool"):
        raise ExpressionError(f"a number was expected here, this is a {field.type}", field.column)


def _resolution(text: str, window_ms: int) -> str:
    step = step_ms(window_ms)
    return f"{text} per {written(step)}" if step else text


def _timed(type_name: str, column: int, text: str, run: Callable[[Scope], Any], wakes: Wakes) -> Node:
    return Node("call", type_name, column, text, run=run, wakes=wakes, plain=False, weight=3)


def _stale_edge(name: str, stale_ms: int) -> Wakes:
    """The instant at which a known value will be too old."""

    def wakes(scope: Scope) -> int | None:
        updated = scope.updated(name)
        return None if updated is None else updated + stale_ms + 1

    return wakes


def _first(every: list[Wakes]) -> Wakes:
    def wakes(scope: Scope) -> int | None:
        found = [instant for one in every if (instant := one(scope)) is not None and instant > scope.now]
        return min(found, default=None)

    return wakes


def _same(unit: Unit | None) -> Unit | None:
    return unit


def _number(_unit: Unit | None) -> Unit | None:
    return NONE


def _per_second(unit: Unit | None) -> Unit | None:
    return product_unit(unit, SECOND, divided=True)


_WINDOWS: Final = {
    "avg": _Window(lambda track, now, ms: track.mean(now, ms), _same),
    "min": _Window(lambda track, now, ms: track.least(now, ms), _same),
    "max": _Window(lambda track, now, ms: track.most(now, ms), _same),
    "sum": _Window(lambda track, now, ms: track.total(now, ms), _same),
    "stddev": _Window(lambda track, now, ms: track.spread(now, ms), _same),
    "delta": _Window(lambda track, now, ms: track.delta(now, ms), _same),
    "rate": _Window(lambda track, now, ms: track.rate(now, ms), _per_second),
    "changes": _Window(lambda track, now, ms: track.changes(now, ms), _number, text=True),
    "samples": _Window(lambda track, now, ms: track.samples(now, ms), _number, text=True),
}
_SIBLINGS: Final[dict[str, Callable[[Sequence[float]], float | None]]] = {
    "avg_ports": _mean,
    "min_ports": lambda values: min(values, default=None),
    "max_ports": lambda values: max(values, default=None),
}

FUNCTIONS: Final[dict[str, Function]] = {
    "known": Function(("value",), _known),
    "active": Function(("fault",), _active),
    "age": Function(("field",), _age),
    "absent": Function(("duration",), _absent),
    **dict.fromkeys(_WINDOWS, Function(("field", "window"), _window)),
    "count": Function(("condition", "window"), _count),
    **dict.fromkeys(FACES, Function((), _calendar)),
    "between": Function(("start", "end"), _between),
    **dict.fromkeys(_SIBLINGS, Function(("port",), _ports)),
    "abs": Function(("number",), _abs),
    "coalesce": Function(("number", "constant"), _coalesce),
}
