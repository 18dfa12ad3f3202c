"""`/tickets` and `/tickets/{id}`: the list, one ticket with its six steps, and its buttons as a plain form."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError

from api import html, models, ticket_views
from api.deps import Actor, Language, Svc
from api.services import Services
from api.tickets import ActionName, TicketFilter
from core import i18n
from core.errors import IllegalMove, MissingField

router = APIRouter()

TicketId = Annotated[int, Path(ge=1, le=2**53)]
PAGE: int = 100


@router.get("/tickets")
def tickets(
    request: Request,
    services: Svc,
    *,
    state: TicketFilter = "open",
    site: Annotated[str | None, Query(max_length=64)] = None,
    before_id: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> HTMLResponse:
    """Open tickets by urgency, or closed ones, newest first."""
    frame = html.frame(services)
    found = ticket_views.find(services, state=state, site=site or None, device=None, limit=PAGE, before_id=before_id)
    return html.page(
        request,
        "tickets.html",
        **frame,
        tickets=found.items,
        next=found.next,
        state=state,
        site=site or "",
        sites=services.registry.sites(),
    )


@router.get("/tickets/{ticket_id}")
def ticket(request: Request, services: Svc, ticket_id: TicketId) -> HTMLResponse:
    """One ticket. Raises NotFound."""
    return _page(request, services, ticket_id)


async def _form(request: Request) -> dict[str, str]:
    """Fields of a plain form; the guard has bounded its size."""
    body = await request.body()
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


@router.post("/tickets/{ticket_id}/actions/{action}")
def act(
    request: Request,
    services: Svc,
    *,
    ticket_id: TicketId,
    action: ActionName,
    form: Annotated[dict[str, str], Depends(_form)],
    actor: Actor,
    lang: Language,
) -> Response:
    """The same action as in the JSON API, for a form without script. What was typed is not lost by a mistake."""
    try:
        body = models.ActionBody(
            actor=form.get("actor", ""), note=form.get("note", ""), clear=form.get("clear") == "true"
        )
        ticket_views.act(services, ticket_id, action, body, actor(body.actor))
    except ValidationError as error:
        fault = error.errors()[0]
        field = "other" if fault["type"] == "string_too_long" else str(fault["loc"][0])
        return _page(request, services, ticket_id, 422, _missing(field, lang), form)
    except MissingField as error:
        return _page(request, services, ticket_id, 422, _missing(error.field, lang), form)
    except IllegalMove as error:
        return _page(request, services, ticket_id, 409, _not_now(services, ticket_id, error, lang), form)
    return RedirectResponse(f"/tickets/{ticket_id}", 303)


def _page(
    request: Request,
    services: Services,
    ticket_id: int,
    status: int = 200,
    problem: str = "",
    form: dict[str, str] | None = None,
) -> HTMLResponse:
    frame = html.frame(services)
    found = ticket_views.detail(services, ticket_id)
    sites = {site.id: models.Name(zh=site.zh, en=site.en) for site in services.registry.sites()}
    return html.page(
        request,
        "ticket.html",
        status_code=status,
        here=f"/tickets/{ticket_id}",
        **frame,
        ticket=found,
        site_name=sites.get(found.site, models.Name(zh=found.site, en=found.site)),
        registered=services.registry.device(found.device).registered,
        problem=problem,
        form=form or {},
    )


def _missing(field: str, lang: i18n.Lang) -> str:
    key = f"error.missing.{field}"
    return i18n.word(key if key in i18n.WORDS else "error.missing.other", lang)


def _not_now(services: Services, ticket_id: int, error: IllegalMove, lang: i18n.Lang) -> str:
    state = services.tickets.get(ticket_id).state
    key = f"action.{error.action}"
    if key not in i18n.WORDS:
        return i18n.word("error.unknown_action", lang)
    return i18n.word("error.moved", lang).format(
        state=i18n.word(f"ticket_state.{state}", lang), action=i18n.word(key, lang)
    )
