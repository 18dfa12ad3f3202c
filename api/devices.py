"""`/api/v1/devices`: lifts and charging piles, registered or only heard."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api import device_views, models
from api.deps import Svc

router = APIRouter(tags=["devices"])

DeviceId = Annotated[str, Path(max_length=130, description="site.device", examples=["fenghe.lift-01"])]


@router.get("/devices", summary="Devices by id")
def devices(
    services: Svc,
    *,
    site: Annotated[str | None, Query(max_length=64)] = None,
    kind: Annotated[str | None, Query(max_length=32, examples=["elevator", "charger"])] = None,
    state: models.DeviceState | None = None,
    after_id: Annotated[str | None, Query(max_length=130, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=5_000)] = 1_000,
) -> models.Page[models.Device]:
    """A page may hold fewer devices than `limit` when `state` filters; go on while `next` is not null."""
    found = device_views.tiles(services, site=site, kind=kind, after_id=after_id, limit=limit)
    last = found[-1].device.id if len(found) == limit else None
    return models.Page[models.Device](
        items=[tile.device for tile in found if state is None or tile.device.state == state], next=last
    )


@router.get("/devices/{device_id}", summary="One device with its newest values")
def device(services: Svc, device_id: DeviceId) -> models.DeviceDetail:
    """Values with unit and age, register entry, open incidents and tickets, recent events."""
    return device_views.detail(services, device_views.tile(services, device_id))
