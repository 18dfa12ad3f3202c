"""`/api/v1/devices/{id}/series`: one field over time, for charts."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from api import device_views, models
from api.deps import Svc
from api.devices import DeviceId
from core.errors import NotFound
from storage.registry import WHOLE_SITE

router = APIRouter(tags=["devices"])

HOUR_MS: Final = 3_600_000
MAX_SPAN_MS: Final = 3_660 * 24 * HOUR_MS
DEFAULT_BUCKETS: Final = 500
MAX_BUCKETS: Final = 5_000
MAX_MS: Final = 253_402_300_800_000
"""The year 10000: a time beyond it is a mistake."""

_STEPS: Final = (
    *(1_000 * seconds for seconds in (1, 2, 5, 10, 15, 30)),
    *(60_000 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(HOUR_MS * hours for hours in (1, 2, 3, 6, 12, 24)),
)


@router.get("/devices/{device_id}/series", summary="One field over time, down-sampled")
def series(
    services: Svc,
    device_id: DeviceId,
    *,
    field: Annotated[str, Query(min_length=1, max_length=64, examples=["speed_mps"])],
    part: Annotated[str, Query(max_length=16, description="empty: the device itself; a port number")] = "",
    start: Annotated[
        int | None, Query(alias="from", ge=0, le=MAX_MS, description="Unix ms; default: an hour before `to`")
    ] = None,
    to: Annotated[int | None, Query(ge=0, le=MAX_MS, description="Unix ms, exclusive; default: now")] = None,
    step: Annotated[
        int | None,
        Query(ge=1, le=MAX_SPAN_MS, description=f"ms; default: at most {DEFAULT_BUCKETS} buckets"),
    ] = None,
) -> models.Series:
    """At most 10 years and 5 000 buckets at once. Data older than `series.raw_days` comes in whole minutes or hours.

    A field that was never sent answers with no buckets.
    """
    kind = services.registry.device(device_id).kind
    if kind == WHOLE_SITE:
        raise NotFound("device", device_id)
    end = services.now() + 1 if to is None else to
    begin = max(0, end - HOUR_MS) if start is None else start
    step = default_step(end - begin) if step is None else step
    _check(begin, end, step)
    spec = device_views.spec_of(kind, field)
    found = services.series.window(kind, device_id, part, field, start=begin, end=end, step=step)
    return models.Series(
        device=device_id,
        part=part,
        field=field,
        unit=spec.unit if spec else "",
        from_=begin,
        to=end,
        step=step,
        buckets=[
            models.SeriesBucket(
                start=one.start, points=one.points, last=one.last, mean=one.mean, min=one.minimum, max=one.maximum
            )
            for one in found
        ],
    )


def default_step(span_ms: int) -> int:
    """The smallest round step (ms) that gives at most 500 buckets."""
    days = 24 * HOUR_MS
    fine = next((step for step in _STEPS if span_ms <= step * (DEFAULT_BUCKETS - 1)), None)
    return fine or -(-span_ms // (days * (DEFAULT_BUCKETS - 1))) * days


def _check(begin: int, end: int, step: int) -> None:
    """What single parameters cannot say of themselves."""
    if begin >= end:
        raise _wrong("from", "must be before `to`")
    if end - begin > MAX_SPAN_MS:
        raise _wrong("from", "a window is at most 3660 days long")
    if (end - begin) // step > MAX_BUCKETS:
        raise _wrong("step", f"too fine: more than {MAX_BUCKETS} buckets")


def _wrong(name: str, reason: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("query", name), "msg": reason, "type": "value_error"}])
