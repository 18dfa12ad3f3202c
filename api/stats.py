"""`/api/v1/stats`: what came in and where it went; `core.stats` has the balance."""

from __future__ import annotations

from fastapi import APIRouter

from api import models
from api.deps import Svc
from api.services import Services
from core.stats import IngestStats

router = APIRouter(tags=["operation"])


@router.get("/stats", summary="Counts of the worker and of the records")
def stats(services: Svc) -> models.Stats:
    """Worker counts start at 0 with the process; rows and tickets are what the records hold."""
    return collect(services)


def collect(services: Services) -> models.Stats:
    """Three queries. Raises StoreUnavailable."""
    counts = services.stats() or IngestStats()
    rows, messages = services.quarantine.totals()
    ended = counts.stored + counts.duplicate + counts.quarantined
    return models.Stats(
        **counts._asdict(),
        balance=counts.received + counts.carried - ended - counts.spooled - counts.in_flight,
        open_tickets=services.tickets.open_count(),
        quarantine_rows=rows,
        quarantine_messages=messages,
        outbox_waiting=services.outbox.waiting(),
    )
