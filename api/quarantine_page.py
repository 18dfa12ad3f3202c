"""`/quarantine`: messages that could not be understood, as text."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from api import html, quarantine
from api.deps import Svc

router = APIRouter()


@router.get("/quarantine")
def quarantined(
    request: Request, services: Svc, before_id: Annotated[int | None, Query(ge=1, le=2**53)] = None
) -> HTMLResponse:
    """Newest first, 50 on a page."""
    frame = html.frame(services)
    found = quarantine.page(services, before_id=before_id, limit=50)
    rows, messages = services.quarantine.totals()
    return html.page(
        request,
        "quarantine.html",
        **frame,
        rows=found.items,
        next=found.next,
        total_rows=rows,
        total_messages=messages,
    )
