"""`/api/v1/silences`: times when nobody is told of faults, and maintenance windows of devices."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from api import models
from api.deps import Actor, Svc
from api.services import Services
from core.errors import MissingField, NotFound
from storage import silences as stored

router = APIRouter(tags=["silences"])

SilenceId = Annotated[int, Path(ge=1, le=2**53)]


@router.get("/silences", summary="Silences and maintenance windows, newest first")
def silences(
    services: Svc,
    *,
    state: Literal["active", "all"] = "all",
    site: Annotated[str | None, Query(max_length=64)] = None,
    device: Annotated[str | None, Query(max_length=130, description="its own, and those of its whole site")] = None,
    before_id: Annotated[int | None, Query(ge=1, le=2**53, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> models.Page[models.Silence]:
    """`active`: those that hold now."""
    now = services.now()
    rows = services.silences.find(
        active_at=now if state == "active" else None,
        site_id=site,
        device_id=device,
        limit=limit + 1,
        before_id=before_id,
    )
    return models.Page[models.Silence](
        items=[_shown(row, now) for row in rows[:limit]], next=rows[limit - 1].id if len(rows) > limit else None
    )


@router.post("/silences", status_code=201, summary="Silence a site, a device or one kind of fault")
def add(services: Svc, body: models.SilenceBody, actor: Actor) -> models.Silence:
    """P0 (life safety) goes out all the same, unless the silence names one device and says `include_p0`."""
    now = services.now()
    site_id = _site_of(services, body)
    made = services.silences.add(
        site_id=site_id,
        device_id=body.device,
        fault_group=body.group,
        kind=body.kind,
        include_p0=body.include_p0,
        starts=now if body.starts is None else body.starts,
        ends=body.ends,
        reason=body.reason,
        created_by=actor(body.actor),
        now=now,
    )
    return _shown(made, now)


@router.get("/silences/{silence_id}", summary="One silence")
def silence(services: Svc, silence_id: SilenceId) -> models.Silence:
    """Also when it is over."""
    return _shown(services.silences.get(silence_id), services.now())


@router.delete("/silences/{silence_id}", summary="End a silence now")
def end(services: Svc, silence_id: SilenceId) -> models.Silence:
    """What it held back of faults that are still open is told at once. One that is over stays as it was."""
    now = services.now()
    return _shown(services.silences.end(silence_id, now=now), now)


def _site_of(services: Services, body: models.SilenceBody) -> str:
    """The site in question. Raises NotFound for a device or site that nobody knows, MissingField for neither."""
    if body.device is not None:
        known = services.registry.device(body.device)
        return known.site_id if body.site is None else body.site
    if body.site is None:
        raise MissingField(body.kind, "site", "name the site or the device")
    registered = {one.id for one in services.registry.sites()}
    if body.site not in registered and not services.registry.devices(site_id=body.site, limit=1):
        raise NotFound("site", body.site)
    return body.site


def _shown(row: stored.Silence, now: int) -> models.Silence:
    return models.Silence(
        id=row.id,
        site=row.site_id,
        device=row.device_id,
        group=row.fault_group,
        kind=row.kind,
        include_p0=row.include_p0,
        starts=row.starts,
        ends=row.ends,
        reason=row.reason,
        actor=row.created_by,
        created=row.created,
        ended=row.ended,
        active=row.starts <= now < row.ends and row.ended is None,
    )
