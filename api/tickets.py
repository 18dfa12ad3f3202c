"""`/api/v1/tickets`: work that somebody owes, and the actions that move it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from api import models, ticket_views
from api.deps import Actor, Svc

router = APIRouter(tags=["tickets"])

TicketId = Annotated[int, Path(ge=1, le=2**53)]
ActionName = Annotated[str, Path(max_length=32, examples=["accept", "arrive", "done", "verify", "close"])]
TicketFilter = Literal["open", "reported", "filed", "dispatched", "accepted", "on_site", "done", "verified", "closed"]


@router.get("/tickets", summary="Tickets: open ones first, the most urgent on top")
def tickets(
    services: Svc,
    *,
    state: TicketFilter | None = None,
    site: Annotated[str | None, Query(max_length=64)] = None,
    device: Annotated[str | None, Query(max_length=130)] = None,
    before_id: Annotated[int | None, Query(ge=1, le=2**53, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="of closed tickets; open ones come all")] = 200,
) -> models.Page[models.Ticket]:
    """All open tickets (at most 1 000), then closed ones, newest first. `before_id` pages through closed ones."""
    return ticket_views.find(services, state=state, site=site, device=device, limit=limit, before_id=before_id)


@router.get("/tickets/{ticket_id}", summary="One ticket with history, evidence and what can be done now")
def ticket(services: Svc, ticket_id: TicketId) -> models.TicketDetail:
    """`actions` are exactly the moves that would be accepted in this state."""
    return ticket_views.detail(services, ticket_id)


@router.post(
    "/tickets/{ticket_id}/actions/{action}",
    summary="Take an action",
    responses={409: {"model": models.ErrorAnswer, "description": "Not possible in this state; nothing was changed."}},
)
def act(
    services: Svc, ticket_id: TicketId, action: ActionName, body: models.ActionBody, actor: Actor
) -> models.TicketDetail:
    """Closing an entrapment, as false alarm too, takes `"clear": true`: passengers out, lift clear (EN 81-28)."""
    ticket_views.act(services, ticket_id, action, body, actor(body.actor))
    return ticket_views.detail(services, ticket_id)
