"""Incidents and tickets as the API and the pages show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from api import models
from api.services import Services
from core import ticket as machine
from core.fields import FieldSpec
from core.kinds import KINDS, all_fields
from core.ticket import MOVES, STEPS, State
from storage import incidents, tickets

MAX_OPEN: Final = 1_000
"""Open tickets that one answer holds."""

_Names = Mapping[str, tuple[str, str]]


def incident(row: incidents.Incident) -> models.Incident:
    """One incident."""
    return models.Incident(
        id=row.id,
        device=row.device_id,
        part=row.part,
        group=row.fault_group,
        rule=row.rule_id,
        severity=row.severity,
        title=models.Name(zh=row.title_zh, en=row.title_en),
        what_to_do=models.Name(zh=row.what_to_do_zh, en=row.what_to_do_en),
        needs_clear=row.needs_clear,
        opened_device_ms=row.opened_device_ms,
        opened=row.opened,
        late=row.late,
        evidence=dict(row.evidence),
        cleared_device_ms=row.cleared_device_ms,
        closed=row.closed,
        outcome=row.outcome,
        previous=row.previous_id,
        reopened=row.reopened,
        reason=row.reason,
        rule_version=row.rule_version,
    )


def ticket(row: tickets.Ticket, contractors: _Names) -> models.Ticket:
    """One ticket in a list."""
    return models.Ticket(
        id=row.id,
        incident=row.incident_id,
        state=row.state,
        step=STEPS[State(row.state)].number,
        severity=row.severity,
        title=models.Name(zh=row.title_zh, en=row.title_en),
        site=row.site_id,
        device=row.device_id,
        device_name=models.Name.of_device(row.device_id, row.device_zh, row.device_en),
        part=row.part,
        kind=row.kind,
        group=row.fault_group,
        contractor=models.Party.known(row.contractor_id, contractors),
        needs_clear=row.needs_clear,
        late=row.late,
        opened_device_ms=row.opened_device_ms,
        cleared_device_ms=row.cleared_device_ms,
        created=row.created,
        changed=row.changed,
        closed=row.closed,
        outcome=row.outcome,
    )


def find(
    services: Services,
    *,
    state: str | None,
    site: str | None,
    device: str | None,
    limit: int,
    before_id: int | None,
) -> models.Page[models.Ticket]:
    """Open tickets first, the most urgent on top; then closed ones, newest first, which `before_id` pages through.

    `state`: `open`, `closed`, one state, or None for all.
    """
    found: list[tickets.Ticket] = []
    if before_id is None and state != State.CLOSED:
        states = None if state in {None, "open"} else [str(state)]
        found = services.tickets.find(open_only=True, states=states, limit=MAX_OPEN, device_id=device, site_id=site)
    closed: list[tickets.Ticket] = []
    if state in {None, State.CLOSED}:
        closed = services.tickets.find(
            states=[State.CLOSED], limit=limit + 1, before_id=before_id, device_id=device, site_id=site
        )
    more = closed[limit - 1].id if len(closed) > limit else None
    contractors = services.registry.contractors()
    return models.Page[models.Ticket](items=[ticket(row, contractors) for row in found + closed[:limit]], next=more)


def detail(services: Services, ticket_id: int) -> models.TicketDetail:
    """A ticket with its history and what can be done now. Raises NotFound."""
    row = services.tickets.get(ticket_id)
    cause = services.incidents.get(row.incident_id)
    fields = all_fields(row.kind) if row.kind in KINDS else {}
    return models.TicketDetail(
        **ticket(row, services.registry.contractors()).model_dump(),
        rule=cause.rule_id,
        what_to_do=models.Name(zh=cause.what_to_do_zh, en=cause.what_to_do_en),
        evidence=dict(cause.evidence),
        evidence_values=_evidence_values(cause.evidence, fields),
        actions=actions(State(row.state), needs_clear=row.needs_clear),
        history=[models.HistoryEntry(**_history(entry)) for entry in services.tickets.history(ticket_id)],
    )


def actions(state: State, *, needs_clear: bool) -> list[models.Action]:
    """The moves that people can make now, in the order of the table."""
    return [_action(MOVES[name], needs_clear=needs_clear) for name in machine.allowed(state)]


def act(services: Services, ticket_id: int, action: str, body: models.ActionBody, actor: str) -> None:
    """Raises NotFound, IllegalMove or MissingField; then nothing was changed."""
    said: dict[str, Any] = {"note": body.note} | ({"clear": True} if body.clear else {})
    services.tickets.act(ticket_id, action, actor=actor, said=said, now=services.now())


def _action(move: machine.Move, *, needs_clear: bool) -> models.Action:
    clear = ["clear"] if needs_clear and move.target is State.CLOSED else []
    return models.Action(action=move.action, target=move.target, requires=[*move.requires, *clear])


def _history(entry: tickets.Entry) -> dict[str, Any]:
    said = entry._asdict()
    del said["ticket_id"]
    return said | {"facts": dict(entry.facts)}


def _evidence_values(evidence: Mapping[str, Any], fields: Mapping[str, FieldSpec]) -> list[models.EvidenceValue]:
    """The engine wrote `{"values": {field: {"value", "ts"}}}`; anything else is left to the raw evidence."""
    values = evidence.get("values")
    if not isinstance(values, Mapping):
        return []
    found = []
    for name, held in values.items():
        if not isinstance(held, Mapping) or not isinstance(held.get("value"), bool | int | float | str):
            continue
        spec = fields.get(name)
        found.append(
            models.EvidenceValue(
                field=name,
                name=models.Name(zh=spec.zh, en=spec.en) if spec else models.Name(zh=name, en=name),
                value=held["value"],
                unit=spec.unit if spec else "",
                ts=held.get("ts"),
            )
        )
    return found
