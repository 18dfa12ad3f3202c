"""How a field of the wire contract is declared: type, unit, range, two names, and how long its value can be trusted."""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, NotRequired, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, Field, with_config
from pydantic.config import JsonDict
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

STALE_MS: Final = 600_000
"""After ten minutes without a new value a field is unknown, unless it says otherwise (DESIGN, wire contract)."""


MAX_COUNT: Final = 2**53 - 1
"""The largest whole number that every JSON reader keeps exactly; counters and sequence numbers end there."""


class Wire(BaseModel):
    """Base of all payload models: strict types, no NaN, unknown extra fields are kept."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True, frozen=True)


class FieldSpec(NamedTuple):
    """A field as rules, stores and pages see it."""

    name: str
    type: type
    unit: str
    zh: str
    en: str
    choices: tuple[str, ...]
    low: float | None
    """What is physically possible, not what is healthy."""
    high: float | None
    stale_ms: int


@cache
def as_dict(model: type[Wire]) -> type:
    """The model as a TypedDict: validated by the same rules, without building an object for every snapshot."""
    items = {}
    for name, info in model.model_fields.items():
        typed = _with_dicts(info.annotation)
        for constraint in info.metadata:
            typed = Annotated[typed, constraint]
        items[name] = typed if info.is_required() else NotRequired[typed]
    made: Any = TypedDict(model.__name__, items)  # type: ignore[misc] # its name and fields are known at run time only
    return with_config(model.model_config)(made)


def _with_dicts(annotation: Any) -> Any:
    """`tuple[PortTelemetry, ...]` with the model as a TypedDict too."""
    if get_origin(annotation) is tuple:
        return tuple[as_dict(get_args(annotation)[0]), ...]  # type: ignore[misc]
    return annotation


def field(
    zh: str,
    en: str,
    *,
    unit: str = "",
    ge: float | None = None,
    le: float | None = None,
    max_length: int | None = None,
    stale_ms: int = STALE_MS,
) -> Any:
    """An optional field of a payload model. Ranges are what is physically possible, not what is healthy."""
    extra: JsonDict = {"x-zh": zh, "x-unit": unit, "x-stale-ms": stale_ms}
    return Field(default=None, title=en, ge=ge, le=le, max_length=max_length, json_schema_extra=extra)


@cache
def specs(model: type[Wire]) -> dict[str, FieldSpec]:
    """Every field of a model that was declared with `field`, by name, in order of declaration."""
    found = {}
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra
        if not isinstance(extra, dict) or "x-zh" not in extra:
            continue
        python_type, choices = _plain_type(info.annotation)
        low = next((float(str(m.ge)) for m in info.metadata if isinstance(m, Ge)), None)
        high = next((float(str(m.le)) for m in info.metadata if isinstance(m, Le)), None)
        found[name] = FieldSpec(
            name,
            python_type,
            str(extra["x-unit"]),
            str(extra["x-zh"]),
            info.title or name,
            choices,
            low,
            high,
            int(str(extra["x-stale-ms"])),
        )
    return found


def _plain_type(annotation: Any) -> tuple[type, tuple[str, ...]]:
    """The one type behind `T | None`; literals are text with choices."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (arg for arg in get_args(annotation) if arg is not NoneType)
    if get_origin(annotation) is Literal:
        return str, get_args(annotation)
    return annotation, ()
