"""The grammar of conditions: recursive descent, one method per level of precedence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from alerts.condition import Param
from alerts.functions import FUNCTIONS, SECOND, age_comparison
from alerts.syntax import (
    ORDER,
    TYPE_NAMES,
    Node,
    all_of,
    arithmetic,
    comparison,
    constant,
    in_unit,
    minus,
    negation,
)
from alerts.tokens import Token, hint, tokens
from alerts.units import BARE, DURATIONS_MS, MEASURES, NONE, fact_unit, unit_of, written
from alerts.walltime import minute_of_day
from alerts.windows import LONGEST_MS, SHORTEST_MS
from core.errors import ExpressionError
from core.fields import FieldSpec

MAX_DEPTH: Final = 40
LONGEST_SILENCE_MS: Final = 365 * 86_400_000


class Parser:
    """Reads one text over these fields, faults and parameters. `ports`: fields that may be asked of other ports."""

    def __init__(
        self,
        text: str,
        fields: Mapping[str, FieldSpec],
        faults: frozenset[str],
        params: Mapping[str, Param],
        ports: Mapping[str, FieldSpec],
    ) -> None:
        self._tokens = tokens(text)
        self._at = 0
        self._fields = fields
        self._faults = faults
        self._params = params
        self._ports = ports

    def whole(self) -> Node:
        """The tree of the whole text. Raises ExpressionError."""
        node = self._disjunction(0)
        if self._now.type != "end":
            raise ExpressionError(f"'{_shown(self._now)}' was not expected here", self._now.column)
        return node

    def _disjunction(self, depth: int) -> Node:
        return self._chain("or", self._conjunction, depth)

    def _conjunction(self, depth: int) -> Node:
        return self._chain("and", self._negation, depth)

    def _chain(self, word: str, below: Callable[[int], Node], depth: int) -> Node:
        self._not_too(depth)
        parts = [below(depth)]
        while self._take(word):
            parts.append(below(depth))
        return all_of(word, parts) if len(parts) > 1 else parts[0]

    def _negation(self, depth: int) -> Node:
        self._not_too(depth)
        column = self._now.column
        if self._take("not"):
            return negation(self._negation(depth + 1), column)
        return self._comparison(depth)

    def _comparison(self, depth: int) -> Node:
        left = self._sum(depth)
        sign = self._now.text
        if self._now.type != "sign" or sign not in ORDER:
            return left
        self._at += 1
        right = self._sum(depth)
        make = age_comparison if "age" in (left.type, right.type) else comparison
        return make(sign, left, right)

    def _sum(self, depth: int) -> Node:
        return self._left_to_right(("+", "-"), self._product, depth)

    def _product(self, depth: int) -> Node:
        return self._left_to_right(("*", "/"), self._signed, depth)

    def _left_to_right(self, signs: tuple[str, ...], below: Callable[[int], Node], depth: int) -> Node:
        node = below(depth)
        while self._now.type == "sign" and self._now.text in signs:
            sign = self._next().text
            node = arithmetic(sign, node, below(depth))
        return node

    def _signed(self, depth: int) -> Node:
        column = self._now.column
        return minus(self._atom(depth), column) if self._take("-") else self._atom(depth)

    def _atom(self, depth: int) -> Node:
        token = self._next()
        if token.type == "number":
            return _number(token)
        if token.type == "text":
            return constant(token.text, token.column)
        if token.type == "sign" and token.text == "(":
            node = self._disjunction(depth + 1)
            self._close()
            return node
        if token.type == "name" and token.text in ("true", "false"):
            return constant(token.text == "true", token.column)
        if token.type == "name" and token.text not in ("and", "or", "not"):
            return self._function(token, depth) if self._take("(") else self._name(token)
        raise ExpressionError(f"a value was expected, not '{_shown(token)}'", token.column)

    def _name(self, token: Token) -> Node:
        param = self._params.get(token.text)
        if token.type == "name" and param is not None:
            return _parameter(token, param)
        return self._value(token)

    def _value(self, token: Token) -> Node:
        """A field or a fact of the device."""
        if token.type == "name" and token.text.startswith("device."):
            name = token.text.removeprefix("device.")
            return Node("fact", "any", token.column, token.text, unit=fact_unit(name), value=name)
        return self._field(token)

    def _field(self, token: Token) -> Node:
        spec = self._fields.get(token.text) if token.type == "name" else None
        if spec is None:
            close = hint(token.text, [*self._fields, *self._params])
            raise ExpressionError(f"unknown field '{_shown(token)}'{close}", token.column)
        unit, name = unit_of(spec.unit) if spec.unit else NONE, token.text
        type_name = TYPE_NAMES[spec.type]
        fields = frozenset({name})
        return Node("field", type_name, token.column, name, unit=unit, value=name, spec=spec, fields=fields)

    def _function(self, token: Token, depth: int) -> Node:
        function = FUNCTIONS.get(token.text)
        if function is None:
            raise ExpressionError(f"unknown function '{token.text}'{hint(token.text, FUNCTIONS)}", token.column)
        found: list[Any] = []
        for index, kind in enumerate(function.takes):
            if index and not self._take(","):
                raise ExpressionError(f"{token.text}() takes {len(function.takes)}: ',' is missing", self._now.column)
            found.append(self._argument(kind, token.text, depth))
        self._close()
        return function.make(token.text, token.column, *found)

    def _argument(self, kind: str, function: str, depth: int) -> Any:  # noqa: PLR0911 # one line for each kind
        match kind:
            case "field":
                return self._field(self._next())
            case "value":
                return self._value(self._next())
            case "port":
                return self._port(function)
            case "fault":
                return self._fault()
            case "condition":
                return self._disjunction(depth + 1)
            case "window":
                return self._duration(function, depth, SHORTEST_MS, LONGEST_MS)
            case "duration":
                return self._duration(function, depth, 1, LONGEST_SILENCE_MS)
            case "start" | "end":
                return self._time_of_day(end=kind == "end")
            case _:
                return self._operand(kind, function, depth)

    def _operand(self, kind: str, function: str, depth: int) -> Node:
        self._not_too(depth + 1)
        node = self._sum(depth + 1)
        if kind == "constant" and node.op != "constant":
            raise ExpressionError(f"{function}() needs a constant here", node.column)
        return node

    def _port(self, function: str) -> FieldSpec:
        token = self._next()
        if not self._ports:
            raise ExpressionError(f"{function}() works only in rules of a port", token.column)
        spec = self._ports.get(token.text) if token.type == "name" else None
        if spec is None:
            raise ExpressionError(f"unknown field '{_shown(token)}'{hint(token.text, self._ports)}", token.column)
        return spec

    def _fault(self) -> str:
        token = self._next()
        name, param = token.text, self._params.get(token.text)
        given = token.type == "text"
        if token.type == "name" and param is not None and isinstance(param.value, str):
            name, given = param.value, True
        if not given or name not in self._faults:
            close = hint(name, self._faults)
            raise ExpressionError(f"active() needs the name of a fault in quotes{close}", token.column)
        return name

    def _duration(self, function: str, depth: int, least_ms: int, most_ms: int) -> int:
        column = self._now.column
        node = in_unit(self._operand("", function, depth), SECOND)
        if node.op != "constant" or not isinstance(node.value, float) or node.unit != SECOND:
            raise ExpressionError(f"{function}() needs a duration here, such as 5m", column)
        found = round(min(max(node.value, -1.0), 1e12) * 1_000)
        if not least_ms <= found <= most_ms:
            raise ExpressionError(f"a duration from {written(least_ms)} to {written(most_ms)} was expected", column)
        return found

    def _time_of_day(self, *, end: bool) -> int:
        token = self._next()
        text, param = token.text, self._params.get(token.text)
        if token.type == "name" and param is not None and isinstance(param.value, str):
            text = param.value
        elif token.type != "text":
            text = ""
        minute = minute_of_day(text, end=end)
        if minute is None:
            raise ExpressionError('a time of day in quotes was expected, such as "22:00"', token.column)
        return minute

    @property
    def _now(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._now
        self._at += token.type != "end"
        return token

    def _take(self, text: str) -> bool:
        taken = self._now.text == text and self._now.type in ("name", "sign")
        self._at += taken
        return taken

    def _close(self) -> None:
        if not self._take(")"):
            raise ExpressionError("')' is missing", self._now.column)

    def _not_too(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH}", self._now.column)


def _parameter(token: Token, param: Param) -> Node:
    try:
        made = constant(param.value, token.column, unit_of(param.unit) if param.unit else BARE)
    except OverflowError as error:
        raise ExpressionError(f"the value of '{token.text}' is too large", token.column) from error
    if isinstance(made.value, float) and not math.isfinite(made.value):
        raise ExpressionError(f"the value of '{token.text}' is no finite number", token.column)
    return made


def _number(token: Token) -> Node:
    value = float(token.text)
    if not math.isfinite(value):
        raise ExpressionError("this number is too large", token.column)
    if not token.unit:
        return constant(value, token.column, BARE)
    if token.unit in DURATIONS_MS:
        factor = DURATIONS_MS[token.unit]
        return constant(value * factor / 1_000, token.column, SECOND)
    if token.unit in MEASURES:
        return constant(value, token.column, unit_of(MEASURES[token.unit]))
    close = hint(token.unit, [*DURATIONS_MS, *MEASURES])
    raise ExpressionError(f"unknown unit '{token.unit}'{close}", token.column + len(token.text))


def _shown(token: Token) -> str:
    return "the end" if token.type == "end" else f"{token.text}{token.unit}"
