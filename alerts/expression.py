"""Conditions of rules: a small language, checked against the contract and compiled to Python closures.

    occupied and not moving and not door_zone
    temp_c >= 80 and state != "idle"
    floor == device.floors and direction == "up"
    active("relay_welded") and power_w > 10

Three-valued: a field that was never seen or has gone stale is *unknown* (None). `unknown and false` is false,
`unknown or true` is true, everything else that touches an unknown is unknown, and an unknown condition changes nothing.
`known(field)` asks. No Python of the user's is ever run; names and types are checked before a rule is used.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from core.errors import ExpressionError
from core.fields import FieldSpec
from core.reading import Value

MAX_LENGTH: Final = 1_000
MAX_DEPTH: Final = 40


class Scope(Protocol):
    """What a condition can see when it is evaluated."""

    def field(self, name: str) -> Value | None:
        """The value of a field; None when unknown."""

    def static(self, name: str) -> Value | None:
        """A fixed fact of the device (`device.floors`); None when nobody recorded it."""

    def active(self, fault: str) -> bool:
        """Whether the device has raised this fault and not cleared it."""


Evaluate = Callable[[Scope], Any]


class Condition(NamedTuple):
    """A compiled expression."""

    text: str
    fields: frozenset[str]
    faults: frozenset[str]
    evaluate: Callable[[Scope], bool | None]


class _Node(NamedTuple):
    """A compiled part: its type (`bool`, `number`, `text`, `any`) and how to compute it."""

    type: str
    evaluate: Evaluate
    column: int
    spec: FieldSpec | None = None
    literal: Value | None = None


class _Token(NamedTuple):
    type: str
    text: str
    column: int


_TOKENS = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<text>\"[^\"\\]*\"|'[^'\\]*')"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?)|(?P<sign>==|!=|<=|>=|[<>()+\-*/,]))"
)
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda left, right: left / right if right else None,
}
_TYPE_NAMES: Final = {bool: "bool", int: "number", float: "number", str: "text"}


def compile_condition(text: str, fields: Mapping[str, FieldSpec], faults: frozenset[str]) -> Condition:
    """The condition in `text` over these fields and fault names. Raises ExpressionError with the column."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters", MAX_LENGTH)
    parser = _Parser(_tokens(text), fields, faults)
    node = parser.disjunction(0)
    parser.expect_end()
    if node.type not in ("bool", "any"):
        raise ExpressionError(f"a condition must be true or false, this is a {node.type}", node.column)
    return Condition(text, frozenset(parser.used_fields), frozenset(parser.used_faults), node.evaluate)


def _tokens(text: str) -> list[_Token]:
    found, position = [], 0
    while text[position:].strip():
        match = _TOKENS.match(text, position)
        if match is None or match.lastgroup is None:
            column = position + len(text[position:]) - len(text[position:].lstrip()) + 1
            raise ExpressionError(f"'{text[column - 1]}' means nothing here", column)
        found.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1))
        position = match.end()
    return [*found, _Token("end", "", len(text) + 1)]


class _Parser:
    """Recursive descent, one method per level of precedence. Every method returns a compiled node."""

    def __init__(self, tokens: list[_Token], fields: Mapping[str, FieldSpec], faults: frozenset[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._fields = fields
        self._faults = faults
        self.used_fields: set[str] = set()
        self.used_faults: set[str] = set()

    def disjunction(self, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH}", self._now.column)
        node = self._conjunction(depth)
        while self._take("or"):
            right = self._conjunction(depth)
            _want("bool", node, right)
            node = _Node("bool", _either(node.evaluate, right.evaluate), node.column)
        return node

    def expect_end(self) -> None:
        if self._now.type != "end":
            raise ExpressionError(f"'{self._now.text}' was not expected here", self._now.column)

    def _conjunction(self, depth: int) -> _Node:
        node = self._negation(depth)
        while self._take("and"):
            right = self._negation(depth)
            _want("bool", node, right)
            node = _Node("bool", _both(node.evaluate, right.evaluate), node.column)
        return node

    def _negation(self, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH}", self._now.column)
        column = self._now.column
        if self._take("not"):
            node = self._negation(depth + 1)
            _want("bool", node)
            return _Node("bool", _opposite(node.evaluate), column)
        return self._comparison(depth)

    def _comparison(self, depth: int) -> _Node:
        left = self._sum(depth)
        sign = self._now.text
        if self._now.type != "sign" or sign not in _COMPARE:
            return left
        self._at += 1
        right = self._sum(depth)
        _comparable(left, right, sign)
        return _Node("bool", _binary(_COMPARE[sign], left.evaluate, right.evaluate), left.column)

    def _sum(self, depth: int) -> _Node:
        return self._left_to_right(("+", "-"), self._product, depth)

    def _product(self, depth: int) -> _Node:
        return self._left_to_right(("*", "/"), self._sign, depth)

    def _left_to_right(self, signs: tuple[str, ...], below: Callable[[int], _Node], depth: int) -> _Node:
        node = below(depth)
        while self._now.type == "sign" and self._now.text in signs:
            sign = self._next().text
            right = below(depth)
            _want("number", node, right)
            node = _Node("number", _binary(_ARITHMETIC[sign], node.evaluate, right.evaluate), node.column)
        return node

    def _sign(self, depth: int) -> _Node:
        column = self._now.column
        if self._now.text != "-":
            return self._atom(depth)
        self._at += 1
        node = self._atom(depth)
        _want("number", node)
        evaluate = node.evaluate
        return _Node("number", lambda scope: None if (v := evaluate(scope)) is None else -v, column)

    def _atom(self, depth: int) -> _Node:
        token = self._next()
        if token.type == "number":
            return _constant("number", float(token.text), token.column)
        if token.type == "text":
            return _constant("text", token.text[1:-1], token.column)
        if token.text == "(":
            node = self.disjunction(depth + 1)
            self._close()
            return node
        if token.text in ("true", "false"):
            return _constant("bool", token.text == "true", token.column)
        if token.type == "name" and token.text not in ("and", "or", "not"):
            return self._function(token) if self._take("(") else self._name(token)
        raise ExpressionError(f"a value was expected, not '{token.text or 'the end'}'", token.column)

    def _name(self, token: _Token) -> _Node:
        if token.text.startswith("device."):
            static = token.text.removeprefix("device.")
            return _Node("any", lambda scope: scope.static(static), token.column)
        spec = self._fields.get(token.text)
        if spec is None:
            raise ExpressionError(f"unknown field '{token.text}'{_hint(token.text, self._fields)}", token.column)
        name = token.text
        self.used_fields.add(name)
        return _Node(_TYPE_NAMES[spec.type], lambda scope: scope.field(name), token.column, spec)

    def _function(self, token: _Token) -> _Node:
        argument = self._next()
        if token.text == "known":
            node = self._name(argument)
            evaluate = node.evaluate
            made = _Node("bool", lambda scope: evaluate(scope) is not None, token.column)
        elif token.text == "active":
            fault = argument.text[1:-1]
            if argument.type != "text" or fault not in self._faults:
                hint = _hint(fault, self._faults)
                raise ExpressionError(f"active() needs the name of a fault in quotes{hint}", argument.column)
            self.used_faults.add(fault)
            made = _Node("bool", lambda scope: scope.active(fault), token.column)
        else:
            raise ExpressionError(
                f"unknown function '{token.text}'{_hint(token.text, ('known', 'active'))}", token.column
            )
        self._close()
        return made

    @property
    def _now(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
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


def _constant(type_name: str, value: Value, column: int) -> _Node:
    return _Node(type_name, lambda _scope: value, column, literal=value)


def _both(left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(scope: Scope) -> bool | None:
        first = left(scope)
        if first is False:
            return False
        second = right(scope)
        if second is False:
            return False
        return None if first is None or second is None else True

    return evaluate


def _either(left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(scope: Scope) -> bool | None:
        first = left(scope)
        if first is True:
            return True
        second = right(scope)
        if second is True:
            return True
        return None if first is None or second is None else False

    return evaluate


def _opposite(inner: Evaluate) -> Evaluate:
    return lambda scope: None if (value := inner(scope)) is None else not value


def _binary(compute: Callable[[Any, Any], Any], left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(scope: Scope) -> Any:
        first, second = left(scope), right(scope)
        if first is None or second is None:
            return None
        try:
            return compute(first, second)
        except (TypeError, OverflowError):  # a recorded fact of the device that is not what the rule expects
            return None

    return evaluate


def _want(type_name: str, *nodes: _Node) -> None:
    for node in nodes:
        if node.type not in (type_name, "any"):
            raise ExpressionError(f"a {type_name} was expected here, this is a {node.type}", node.column)


def _comparable(left: _Node, right: _Node, sign: str) -> None:
    if "any" not in (left.type, right.type) and left.type != right.type:
        raise ExpressionError(f"a {left.type} cannot be compared with a {right.type}", right.column)
    if sign not in ("==", "!=") and (left.type in ("bool", "text") or right.type in ("bool", "text")):
        raise ExpressionError(f"'{sign}' compares numbers only", left.column)
    for field, literal in ((left, right), (right, left)):
        choices = field.spec.choices if field.spec else ()
        if choices and isinstance(literal.literal, str) and literal.literal not in choices:
            raise ExpressionError(f"'{literal.literal}' is never sent; one of: {', '.join(choices)}", literal.column)


def _hint(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
