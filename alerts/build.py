"""A finished tree becomes a Condition: what it names, what it keeps, when it must be looked at again."""

from __future__ import annotations

from typing import Final

from alerts.condition import NEVER_MS, Condition, Evaluate, Scope, Series, Wakes
from alerts.generate import evaluator
from alerts.syntax import Node, all_of, walk
from core.errors import ExpressionError

MAX_COST: Final = 600


def condition_of(text: str, node: Node) -> Condition:
    """The condition of a true-or-false tree. Raises ExpressionError when it costs more than MAX_COST."""
    parts = list(walk(node))
    cost = sum(one.weight for one in parts)
    if cost > MAX_COST:
        raise ExpressionError(f"costs {cost}, more than {MAX_COST}: too many parts or windows", node.column)
    return Condition(
        text=text,
        fields=frozenset().union(*(one.fields for one in parts)),
        faults=frozenset().union(*(one.faults for one in parts)),
        evaluate=evaluator(node),
        series=_merged([one.series for one in parts if one.series is not None]),
        siblings=frozenset(one.sibling for one in parts if one.sibling is not None),
        wakes=_earliest(tuple(one.wakes for one in parts if one.wakes is not None)),
        soonest_ms=min((one.soonest_ms for one in parts if one.soonest_ms is not None), default=NEVER_MS),
        guard=_guard(node),
        fades=all(one.series is None and one.sibling is None for one in parts) and _fades(node),
        plain=all(one.plain for one in parts),
        cost=cost,
    )


def _guard(node: Node) -> Evaluate | None:
    if node.op != "and":
        return None
    plain = [one for one in node.args if all(part.plain for part in walk(one))]
    if not plain or len(plain) == len(node.args):
        return None
    return evaluator(plain[0] if len(plain) == 1 else all_of("and", plain))


def _fades(node: Node) -> bool:
    """Whether every age in it is asked to be large: `age(x) > 5m`, alone or within `and` and `or`."""
    if node.op in ("and", "or"):
        return all(map(_fades, node.args))
    return node.grows or not any(one.ages for one in walk(node))


def _merged(every: list[Series]) -> tuple[Series, ...]:
    found: dict[str, Series] = {}
    for one in every:
        known = found.get(one.key, one)
        found[one.key] = one._replace(keep_ms=max(one.keep_ms, known.keep_ms))
    return tuple(found.values())


def _earliest(every: tuple[Wakes, ...]) -> Wakes | None:
    """The first instant after now of any part. Never raises: what cannot be computed does not wake."""
    if not every:
        return None

    def wakes(scope: Scope) -> int | None:
        now = scope.now
        found = [instant for wake in every if (instant := wake(scope)) is not None and instant > now]
        return min(found, default=None)

    return wakes
