"""Conditions of rules: a small language, checked against the contract and compiled to one Python function.

    occupied and not moving and not door_zone
    temp_c >= 80C and state != "idle"
    floor == device.floors and direction == "up"
    active("relay_welded") and power_w > 10W
    count(door == "open", 10m) >= 20 and not between("22:00", "06:00")

Three-valued: a field that was never seen or has gone stale is *unknown* (None). `unknown and false` is false,
`unknown or true` is true, everything else that touches an unknown is unknown, and an unknown condition changes nothing.
`known(field)` asks. No Python of the user's is ever run; names, types and units are checked before a rule is used.

The way of a text: tokens, parse (with functions, syntax and units), build (with generate), and out comes a Condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from alerts.build import MAX_COST, condition_of
from alerts.condition import Condition, Param, Scope, Series
from alerts.parse import MAX_DEPTH, Parser
from alerts.syntax import as_bool
from alerts.windows import Track, make_track
from core.errors import ExpressionError
from core.fields import FieldSpec

__all__ = [
    "MAX_COST",
    "MAX_DEPTH",
    "MAX_LENGTH",
    "Condition",
    "Param",
    "Scope",
    "Series",
    "Track",
    "compile_condition",
    "make_track",
]

MAX_LENGTH: Final = 1_000
_NO_PARAMS: Final[Mapping[str, Param]] = MappingProxyType({})
_NO_PORTS: Final[Mapping[str, FieldSpec]] = MappingProxyType({})


def compile_condition(
    text: str,
    fields: Mapping[str, FieldSpec],
    faults: frozenset[str],
    *,
    params: Mapping[str, Param] = _NO_PARAMS,
    ports: Mapping[str, FieldSpec] = _NO_PORTS,
) -> Condition:
    """The condition in `text` over these fields and fault names. Raises ExpressionError with the column.

    `params`: names that stand for constants, looked up before fields. `ports`: fields that may be asked of the other
    ports of a pile; empty where the rule is not one of a port.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters", MAX_LENGTH)
    node = Parser(text, fields, faults, params, ports).whole()
    if node.type == "age":
        as_bool(node)
    if node.type not in ("bool", "any"):
        raise ExpressionError(f"a condition must be true or false, this is a {node.type}", node.column)
    return condition_of(text, as_bool(node))
