"""The tree of a condition: parts with a type and a unit, which can only be made where both are right."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from alerts.condition import Scope, Series, Wakes
from alerts.units import NONE, Unit, fit, product_unit, sum_unit, time_factor
from core.errors import ExpressionError
from core.fields import FieldSpec
from core.reading import Value

MAX_TALL: Final = 100
"""So many parts may lie within each other, brackets or not: `x + x + x` is three."""

ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
TYPE_NAMES: Final = {bool: "bool", int: "number", float: "number", str: "text"}


class Node(NamedTuple):
    """A part of a condition.

    `op`: constant, field, fact (device.NAME), active, known, call (of `run`), age, and, or, not, truth (a fact where
    true or false is wanted), minus, abs, coalesce, a sign of comparison or of arithmetic.
    `type`: bool, number, text; any for facts, age for what may only be compared with a duration.
    """

    op: str
    type: str
    column: int
    text: str
    """Canonical: brackets around every part, constants in the unit in which they are compared."""
    args: tuple[Node, ...] = ()
    unit: Unit | None = NONE
    value: Value | None = None
    """Of a constant; of a field, a fact or a fault its name."""
    spec: FieldSpec | None = None
    run: Callable[[Scope], Any] | None = None
    wakes: Wakes | None = None
    soonest_ms: int | None = None
    """So long after a report, at the earliest, it can change by time alone; None: reports have no part in that."""
    ages: bool = False
    """It is a comparison of an age; `grows`: which becomes true, and not false, while nothing is reported."""
    grows: bool = False
    series: Series | None = None
    fields: frozenset[str] = frozenset()
    """Fields that this part itself names; `walk` finds those of its parts."""
    faults: frozenset[str] = frozenset()
    sibling: str | None = None
    plain: bool = True
    weight: int = 1
    tall: int = 1


def walk(node: Node) -> Iterator[Node]:
    """The node and all of its parts."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += one.args


def node_of(op: str, type_name: str, column: int, text: str, *args: Node, unit: Unit | None = NONE) -> Node:
    """A node over parts. Raises ExpressionError when too many lie within each other."""
    tall = 1 + max((one.tall for one in args), default=0)
    if tall > MAX_TALL:
        raise ExpressionError(f"nested deeper than {MAX_TALL}", column)
    return Node(op, type_name, column, text, args, unit, tall=tall)


def constant(value: Value, column: int, unit: Unit | None = NONE) -> Node:
    """A literal, a parameter, or what was computed from those. Numbers are doubles."""
    if isinstance(value, bool):
        return Node("constant", "bool", column, str(value).lower(), value=value)
    if isinstance(value, str):
        return Node("constant", "text", column, f"'{value}'" if '"' in value else f'"{value}"', value=value)
    number = float(value)
    text = repr(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    return Node("constant", "number", column, text, value=number, unit=unit)


def all_of(op: str, parts: list[Node]) -> Node:
    """`and` or `or` over two parts or more."""
    parts = [as_bool(one) for one in parts]
    flat = [inner for one in parts for inner in (one.args if one.op == op else (one,))]
    return node_of(op, "bool", parts[0].column, f" {op} ".join(map(bracketed, flat)), *flat)


def negation(inner: Node, column: int) -> Node:
    """`not`."""
    inner = as_bool(inner)
    return node_of("not", "bool", column, f"not {bracketed(inner)}", inner)


def minus(inner: Node, column: int) -> Node:
    """A sign before a number."""
    want("number", inner)
    if inner.op == "constant" and isinstance(inner.value, float):
        return constant(-inner.value, column, inner.unit)
    return node_of("minus", "number", column, f"-{bracketed(inner)}", inner, unit=inner.unit)


def arithmetic(sign: str, left: Node, right: Node) -> Node:
    """A sum, a difference, a product or a quotient; of two constants it is computed here."""
    want("number", left, right)
    if sign in "+-":
        left, right = _same_unit(left, right, "added to" if sign == "+" else "subtracted from", swap=sign == "-")
        unit = sum_unit(left.unit, right.unit)
    else:
        unit = product_unit(left.unit, right.unit, divided=sign == "/")
    if isinstance(left.value, float) and isinstance(right.value, float):
        folded = _folded(sign, left.value, right.value)
        if folded is not None:
            return constant(folded, left.column, unit)
    return node_of(sign, "number", left.column, f"{bracketed(left)} {sign} {bracketed(right)}", left, right, unit=unit)


def comparison(sign: str, left: Node, right: Node) -> Node:
    """A comparison of two of one type and unit."""
    if "any" not in (left.type, right.type) and left.type != right.type:
        raise ExpressionError(f"a {left.type} cannot be compared with a {right.type}", right.column)
    if sign not in ("==", "!=") and (left.type in ("bool", "text") or right.type in ("bool", "text")):
        raise ExpressionError(f"'{sign}' compares numbers only", left.column)
    for field, literal in ((left, right), (right, left)):
        choices = field.spec.choices if field.spec else ()
        if choices and literal.op == "constant" and isinstance(literal.value, str) and literal.value not in choices:
            raise ExpressionError(f"'{literal.value}' is never sent; one of: {', '.join(choices)}", literal.column)
    left, right = _same_unit(left, right, "compared with")
    return node_of(sign, "bool", left.column, f"{bracketed(left)} {sign} {bracketed(right)}", left, right)


def in_unit(node: Node, unit: Unit | None) -> Node:
    """A constant duration in the unit of time that it meets; everything else as it is."""
    factor = time_factor(node.unit, unit)
    if node.op != "constant" or factor is None or factor == 1.0 or not isinstance(node.value, float):
        return node
    assert node.unit is not None
    return constant(_scaled(node.value, factor), node.column, unit)


def want(type_name: str, *nodes: Node) -> None:
    """Raises ExpressionError unless all are of this type, or facts, of which nobody knows it."""
    for node in nodes:
        if node.type == "age":
            raise ExpressionError("age() can only be compared with a duration, as in age(field) > 5m", node.column)
        if node.type not in (type_name, "any"):
            raise ExpressionError(f"a {type_name} was expected here, this is a {node.type}", node.column)


def as_bool(node: Node) -> Node:
    """The node where true or false is wanted: a fact that is neither is unknown."""
    want("bool", node)
    return node if node.type == "bool" else node_of("truth", "bool", node.column, node.text, node)


def bracketed(node: Node) -> str:
    """Its text, in brackets when it has parts."""
    return f"({node.text})" if node.args and node.op not in ("truth", "abs", "coalesce") else node.text


def _same_unit(left: Node, right: Node, verb: str, *, swap: bool = False) -> tuple[Node, Node]:
    left, right = in_unit(left, right.unit), in_unit(right, left.unit)
    if not fit(left.unit, right.unit):
        one, two = (right, left) if swap else (left, right)
        raise ExpressionError(f"{one.unit} cannot be {verb} {two.unit}", right.column)
    return left, right


def _scaled(value: float, factor: float) -> float:
    """Seconds to hours by a division: 90 s are 0.025 h, and not 0.025000000000000001."""
    return value * factor if factor >= 1 else value / round(1 / factor) if factor < 0.5 else value * factor


def _folded(sign: str, left: float, right: float) -> float | None:
    try:
        found = ARITHMETIC[sign](left, right)
    except ArithmeticError:
        return None
    return float(found) if math.isfinite(found) else None
