"""`/api/v1/incidents`: rules that fired."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from api import models, ticket_views
from api.deps import Svc

router = APIRouter(tags=["incidents"])


@router.get("/incidents", summary="Incidents, newest first")
def incidents(
    services: Svc,
    *,
    state: Literal["open", "all"] = "all",
    site: Annotated[str | None, Query(max_length=64)] = None,
    device: Annotated[str | None, Query(max_length=130)] = None,
    before_id: Annotated[int | None, Query(ge=1, le=2**53, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> models.Page[models.Incident]:
    """An incident is open until its ticket is closed."""
    rows = services.incidents.find(
        open_only=state == "open", device_id=device, site_id=site, limit=limit + 1, before_id=before_id
    )
    return models.Page[models.Incident](
        items=[ticket_views.incident(row) for row in rows[:limit]],
        next=rows[limit - 1].id if len(rows) > limit else None,
    )
