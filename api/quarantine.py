"""`/api/v1/quarantine`: messages that could not become readings, with the reason."""

from __future__ import annotations

import base64
from typing import Annotated

from fastapi import APIRouter, Query

from api import models
from api.deps import Svc
from api.services import Services
from storage.quarantine import Row

router = APIRouter(tags=["quarantine"])


@router.get("/quarantine", summary="Quarantined messages, newest first")
def quarantine(
    services: Svc,
    *,
    before_id: Annotated[int | None, Query(ge=1, le=2**53, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> models.Page[models.Quarantined]:
    """The payload is what a stranger sent: show it as text, never as HTML."""
    return page(services, before_id=before_id, limit=limit)


def page(services: Services, *, before_id: int | None, limit: int) -> models.Page[models.Quarantined]:
    """One page of quarantine, newest row first."""
    rows = services.quarantine.find(limit=limit + 1, before_id=before_id)
    return models.Page[models.Quarantined](
        items=[_quarantined(row) for row in rows[:limit]], next=rows[limit - 1].id if len(rows) > limit else None
    )


def _quarantined(row: Row) -> models.Quarantined:
    return models.Quarantined(
        id=row.id,
        topic=row.topic,
        reason=row.reason,
        text=row.payload_head.decode("utf-8", "replace"),
        base64=base64.b64encode(row.payload_head).decode("ascii"),
        payload_bytes=row.payload_bytes,
        cut=row.payload_bytes > len(row.payload_head),
        first_rx=row.first_rx,
        last_rx=row.last_rx,
        times=row.times,
    )
