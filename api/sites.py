"""`/api/v1/sites`: neighbourhoods with counts."""

from __future__ import annotations

from fastapi import APIRouter

from api import device_views, models
from api.deps import Svc

router = APIRouter(tags=["sites"])


@router.get("/sites", summary="Neighbourhoods with counts of devices and open incidents")
def sites(services: Svc) -> models.Page[models.Site]:
    """Registered sites, and those that only devices nobody registered speak of."""
    return models.Page[models.Site](items=device_views.sites(services, device_views.tiles(services)))
