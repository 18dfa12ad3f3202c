"""`/api/v1/alarm-quality`: whether the alarms are few and good enough to be answered."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from api import models
from api.deps import Svc
from storage import alarm_quality as measures

router = APIRouter(tags=["operation"])

DEFAULT_MS: Final = 30 * 86_400_000
LONGEST_MS: Final = 366 * 86_400_000


@router.get("/alarm-quality", summary="Load, floods, chattering, stale and false alarms")
def alarm_quality(
    services: Svc,
    *,
    site: Annotated[str | None, Query(max_length=64)] = None,
    from_: Annotated[
        int | None, Query(alias="from", ge=0, le=2**53, description="default: 30 days before `to`")
    ] = None,
    to: Annotated[int | None, Query(ge=0, le=2**53, description="not part of it; default: now")] = None,
) -> models.AlarmQuality:
    """Of all sites or one, over at most 366 days."""
    end = services.now() if to is None else to
    start = max(0, end - DEFAULT_MS) if from_ is None else from_
    _check(start, end)
    found = services.alarm_quality.over(start=start, end=end, site_id=site or None)
    return models.AlarmQuality(
        from_=found.start,
        to=found.end,
        alarms=found.alarms,
        late=found.late,
        loads=[_load(one) for one in found.loads],
        severities=dict(found.severities),
        offenders=[
            models.AlarmOffender(**_source(one.source), alarms=one.alarms, share=one.share) for one in found.offenders
        ],
        chattering=[
            models.AlarmChatter(**_source(one.source), most=one.most, unstable=one.unstable) for one in found.chattering
        ],
        stale=[_stale(one) for one in found.stale],
        false_alarms_by_rule=[models.FalseAlarmRate(**one._asdict()) for one in found.by_rule],
        false_alarms_by_device=[models.FalseAlarmRate(**one._asdict()) for one in found.by_device],
    )


def _check(start: int, end: int) -> None:
    reason = ""
    if end <= start:
        reason = "it must be after `from`"
    elif end - start > LONGEST_MS:
        reason = "at most 366 days at once"
    if reason:
        raise RequestValidationError([{"loc": ("query", "to"), "msg": reason, "type": "value_error"}])


def _source(source: measures.Source) -> dict[str, str]:
    return {"rule": source.rule_id, "device": source.device_id, "part": source.part}


def _load(one: measures.Load) -> models.AlarmLoad:
    return models.AlarmLoad(
        site=one.site_id,
        alarms=one.alarms,
        average=one.average,
        peak=one.peak,
        peak_start=one.peak_start,
        flood_share=one.flood_share,
    )


def _stale(one: measures.Course) -> models.StaleAlarm:
    return models.StaleAlarm(
        **_source(one.source), incident=one.id, severity=one.severity, opened=one.opened, closed=one.closed
    )
