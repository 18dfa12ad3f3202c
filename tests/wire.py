"""Hypothesis strategies for what devices may say: generated from the contract itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

from core import clock
from core.fields import MAX_COUNT, FieldSpec, Wire, specs
from core.kinds import KINDS
from core.kinds.charger import MAX_PORTS
from core.kinds.status import Status

RX: Final = 1_795_312_374_000
NAMES: Final = st.from_regex(r"[a-z][a-z0-9_]{0,12}x", fullmatch=True)
"""Names of unknown fields: no field of the contract ends in x."""

CHARACTERS: Final = st.characters(exclude_categories=["Cs"])
"""All but lone surrogates, which no JSON in UTF-8 can hold."""

TEXTS: Final = st.text(CHARACTERS, max_size=12)
UNKNOWN_VALUES: Final = (
    st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53) | TEXTS
)
BELIEVABLE: Final = st.integers(clock.EARLIEST_MS, RX + clock.MAX_AHEAD_MS)
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)


def values(spec: FieldSpec, model: type[Wire]) -> st.SearchStrategy[Any]:
    """Every value that the contract allows for a field."""
    if spec.choices:
        return st.sampled_from(spec.choices)
    if spec.type is bool:
        return st.booleans()
    if spec.type is int:
        low, high = int(spec.low or 0), MAX_COUNT if spec.high is None else int(spec.high)
        return st.integers(low, high)
    if spec.type is float:
        return st.floats(spec.low, 1e12 if spec.high is None else spec.high, allow_nan=False)
    return st.text(CHARACTERS, max_size=max_length(model, spec.name))


def max_length(model: type[Wire], name: str) -> int:
    """The longest text that a field may have."""
    (found,) = (one.max_length for one in model.model_fields[name].metadata if hasattr(one, "max_length"))
    return int(found)


def known_fields(model: type[Wire]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields that a model declares, with good values."""
    optional = {name: values(spec, model) for name, spec in specs(model).items()}
    return st.fixed_dictionaries({}, optional=optional)


def ports() -> st.SearchStrategy[list[dict[str, Any]]]:
    part = KINDS["charger"].part
    assert part is not None
    one = st.tuples(st.integers(1, MAX_PORTS), known_fields(part), unknown_fields())
    made = one.map(lambda given: {**given[2], **given[1], "port": given[0]})
    return st.lists(made, max_size=4, unique_by=lambda port: port["port"])


def unknown_fields() -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(NAMES, UNKNOWN_VALUES, max_size=3)


@st.composite
def snapshots(draw: st.DrawFn, kind: str, times: st.SearchStrategy[int] = BELIEVABLE) -> Mapping[str, Any]:
    """One good telemetry payload, as JSON values."""
    made = draw(unknown_fields()) | draw(known_fields(KINDS[kind].telemetry)) | {"ts": draw(times)}
    if draw(st.booleans()):
        made["seq"] = draw(st.integers(0, MAX_COUNT))
    if KINDS[kind].part is not None and draw(st.booleans()):
        made["ports"] = draw(ports())
    return made


@st.composite
def statuses(draw: st.DrawFn) -> Mapping[str, Any]:
    """One good status payload."""
    return draw(known_fields(Status)) | {"ts": draw(BELIEVABLE)}


@st.composite
def events(draw: st.DrawFn, kind: str) -> Mapping[str, Any]:
    """One good event payload."""
    made: dict[str, Any] = {
        "id": draw(st.text(CHARACTERS, min_size=1, max_size=64)),
        "ts": draw(BELIEVABLE),
        "code": draw(st.from_regex(r"[A-Za-z0-9_.-]{1,32}", fullmatch=True)),
        "table": draw(st.sampled_from(["gbt24476", "dny"]) | st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True)),
        "state": draw(st.sampled_from(["raised", "cleared"])),
    }
    if KINDS[kind].part is not None and draw(st.booleans()):
        made["port"] = draw(st.integers(1, MAX_PORTS))
    return made
