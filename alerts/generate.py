"""The tree of a condition, written as one Python function and compiled once.

The text of that function comes from the tree: its words are ours, and every name and constant of the rule is bound as
a variable (`k0`, `k1`...). Nothing that a user wrote is ever part of it. One expression of `:=` and `if` leaves only
the fields as calls. Measured: two thirds of the time of hand-written closures, and 0.5 to 0.6 of a closure per part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from alerts.condition import Scope
from alerts.syntax import ARITHMETIC, ORDER, Node
from core.reading import Value

_SPILL: Final = 12
"""So many brackets of the generated text lie within each other; then a part becomes a function of its own."""

_BROKEN: Final = (TypeError, ValueError, ArithmeticError)


def evaluator(node: Node) -> Callable[[Scope], Any]:
    """The function that computes a node. It never raises: a value of a type that no contract allows is unknown."""
    writer = _Writer()
    writer.function("run", node)
    space = dict(writer.names)
    exec(compile("\n".join(writer.lines), "<condition>", "exec"), space)  # noqa: S102 # our own text, see above
    found: Callable[[Scope], Any] = space["run"]
    return found


class _Writer:
    """Lines of Python, and what their names stand for."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"broken": _BROKEN, "__builtins__": {}}
        self._bound: dict[tuple[type, Any], str] = {}
        self._made = 0

    def function(self, name: str, node: Node) -> None:
        """A function of this name that returns the node's value."""
        body = self._text(node, 0)
        self.lines += [f"def {name}(scope):", " try:", f"  return {body}", " except broken:", "  return None"]

    def _bind(self, value: Any) -> str:
        key = (type(value), value)
        if key not in self._bound:
            self._bound[key] = f"k{len(self._bound)}"
            self.names[self._bound[key]] = value
        return self._bound[key]

    def _name(self) -> str:
        self._made += 1
        return f"v{self._made}"

    def _text(self, node: Node, deep: int) -> str:
        if deep > _SPILL and node.args:
            name = f"f{self._name()}"
            self.function(name, node)
            return f"{name}(scope)"
        if node.op in ("and", "or"):
            return self._chain(node, deep)
        if not node.args:
            return self._leaf(node)
        parts = [self._text(one, deep + 1) for one in node.args]
        if node.op in ORDER and "any" not in (node.args[0].type, node.args[1].type):
            return self._compared(node, parts)
        return self._joined(node.op, parts)

    def _leaf(self, node: Node) -> str:
        match node.op:
            case "constant":
                return repr(node.value) if isinstance(node.value, bool) else self._bind(node.value)
            case "fact":
                return f"{self._bind(_finite)}(scope.static({self._bind(node.value)}))"
            case "call":
                return f"{self._bind(node.run)}(scope)"
            case _:  # field, active: the scope is asked under the same name
                return f"scope.{node.op}({self._bind(node.value)})"

    def _joined(self, op: str, parts: list[str]) -> str:
        name = self._name()
        match op:
            case "not":
                return f"(None if ({name} := {parts[0]}) is None else not {name})"
            case "known":
                return f"({parts[0]} is not None)"
            case "coalesce":
                return f"({parts[1]} if ({name} := {parts[0]}) is None else {name})"
            case _:
                return f"{self._bind(_COMPUTED[op])}({', '.join(parts)})"

    def _chain(self, node: Node, deep: int) -> str:
        """`and`, `or`: ends at the first part that decides."""
        ends, goes_on = ("False", "True") if node.op == "and" else ("True", "False")
        decided, unknown = [], []
        for one in node.args:
            inner, end = (one.args[0], goes_on) if one.op == "not" else (one, ends)
            name = self._name()
            decided.append(f"({name} := {self._text(inner, deep + 1)}) is {end}")
            unknown.append(f"{name} is None")
        return f"({ends} if {' or '.join(decided)} else None if {' or '.join(unknown)} else {goes_on})"

    def _compared(self, node: Node, parts: list[str]) -> str:
        tested, sides = [], []
        for one, part in zip(node.args, parts, strict=True):
            if one.op == "constant":
                sides.append(part)
                continue
            name = self._name()
            tested.append(f"({name} := {part}) is None")
            sides.append(name)
        whole = f"{sides[0]} {node.op} {sides[1]}"
        return f"(None if {' or '.join(tested)} else {whole})" if tested else f"({whole})"


def _kind(value: Value) -> type:
    return bool if isinstance(value, bool) else str if isinstance(value, str) else float


def _finite(value: Value | None) -> Value | None:
    """A recorded fact, which nobody has checked."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _comparing(sign: str) -> Callable[..., Any]:
    order = ORDER[sign]

    def compare(left: Value | None, right: Value | None) -> bool | None:
        """With a fact of the device: unknown when it is not of the type that the rule expects."""
        if left is None or right is None or _kind(left) is not _kind(right):
            return None
        if sign not in ("==", "!=") and _kind(left) is not float:
            return None
        return order(left, right)

    return compare


def _computing(sign: str) -> Callable[..., Any]:
    arithmetic = ARITHMETIC[sign]

    def compute(left: Value | None, right: Value | None) -> float | None:
        """Unknown when it cannot be computed, or is no finite number."""
        if left is None or right is None or _kind(left) is not float or _kind(right) is not float:
            return None
        try:
            found = arithmetic(left, right)
            return found if math.isfinite(found) else None
        except _BROKEN:
            return None

    return compute


def _truth(value: Value | None) -> bool | None:
    return value if isinstance(value, bool) else None


def _minus(value: Value | None) -> float | None:
    return None if value is None or isinstance(value, str | bool) else -value


def _abs(value: Value | None) -> float | None:
    return None if value is None or isinstance(value, str | bool) else abs(value)


_COMPUTED: Final[dict[str, Callable[..., Any]]] = {
    "truth": _truth,
    "minus": _minus,
    "abs": _abs,
    **{sign: _comparing(sign) for sign in ORDER},
    **{sign: _computing(sign) for sign in ARITHMETIC},
}
