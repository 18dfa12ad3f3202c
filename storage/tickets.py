"""Tickets and their append-only history. The rules of moving are `core.ticket`'s; here they meet the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, update

from core import ticket as machine
from core.errors import IllegalMove, NotFound
from core.ticket import State
from storage import outbox
from storage.records import Records
from storage.silences import active
from storage.tables import device, incident, ticket, ticket_history
from storage.turns import again_after_clash, take_turn


class Ticket(NamedTuple):
    """A ticket with what a list needs of its incident. Times: Unix ms."""

    id: int
    incident_id: int
    state: str
    contractor_id: str | None
    created: int
    changed: int
    device_id: str
    part: str
    site_id: str
    kind: str
    fault_group: str
    severity: str
    title_zh: str
    title_en: str
    needs_clear: bool
    opened_device_ms: int
    late: bool
    cleared_device_ms: int | None
    closed: int | None
    outcome: str | None
    device_zh: str
    device_en: str


class Entry(NamedTuple):
    """One line of a ticket's history. `id` counts over all tickets: the change number that live pages follow."""

    id: int
    ticket_id: int
    at: int
    device_ms: int | None
    actor: str
    action: str
    from_state: str | None
    to_state: str
    note: str
    facts: Mapping[str, Any]


class News(NamedTuple):
    """One line of history as live pages hear of it. `severity` is today's, everything else as it was written."""

    id: int
    """The change number."""
    ticket_id: int
    at: int
    action: str
    state: str
    severity: str
    site_id: str
    device_id: str
    part: str
    title_zh: str
    title_en: str


_TICKETS = (
    select(
        ticket.c.id,
        ticket.c.incident_id,
        ticket.c.state,
        ticket.c.contractor_id,
        ticket.c.created,
        ticket.c.changed,
        incident.c.device_id,
        incident.c.part,
        device.c.site_id,
        device.c.kind,
        incident.c.fault_group,
        incident.c.severity,
        incident.c.title_zh,
        incident.c.title_en,
        incident.c.needs_clear,
        incident.c.opened_device_ms,
        incident.c.late,
        incident.c.cleared_device_ms,
        incident.c.closed,
        incident.c.outcome,
        device.c.zh.label("device_zh"),
        device.c.en.label("device_en"),
    )
    .join(incident, incident.c.id == ticket.c.incident_id)
    .join(device, device.c.id == incident.c.device_id)
)


class Tickets:
    """Reads of tickets, and the one write that people make: an action."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(
        self,
        *,
        open_only: bool = False,
        states: Collection[str] | None = None,
        device_id: str | None = None,
        site_id: str | None = None,
        limit: int = 200,
        before_id: int | None = None,
    ) -> list[Ticket]:
        """Open ones: most urgent first, then oldest. Others: newest first; `before_id` pages on."""
        query = _TICKETS.limit(limit)
        if open_only:
            query = query.where(ticket.c.state != State.CLOSED).order_by(incident.c.severity, ticket.c.id)
        else:
            query = query.order_by(ticket.c.id.desc())
        if states is not None:
            query = query.where(ticket.c.state.in_(states))
        if device_id is not None:
            query = query.where(incident.c.device_id == device_id)
        if site_id is not None:
            query = query.where(device.c.site_id == site_id)
        if before_id is not None:
            query = query.where(ticket.c.id < before_id)
        with self._records.read() as connection:
            return [Ticket._make(row) for row in connection.execute(query)]

    def get(self, ticket_id: int) -> Ticket:
        """Raises NotFound."""
        with self._records.read() as connection:
            return _get(connection, ticket_id)

    def history(self, ticket_id: int) -> list[Entry]:
        """Oldest first."""
        query = select(ticket_history).where(ticket_history.c.ticket_id == ticket_id).order_by(ticket_history.c.id)
        with self._records.read() as connection:
            return [Entry(*row) for row in connection.execute(query)]

    def news_after(self, change: int, *, limit: int = 500) -> list[News]:
        """History lines of all tickets after a change number, oldest first, with what a page needs of the ticket."""
        query = (
            select(
                ticket_history.c.id,
                ticket_history.c.ticket_id,
                ticket_history.c.at,
                ticket_history.c.action,
                ticket_history.c.to_state,
                incident.c.severity,
                device.c.site_id,
                incident.c.device_id,
                incident.c.part,
                incident.c.title_zh,
                incident.c.title_en,
            )
            .join(ticket, ticket.c.id == ticket_history.c.ticket_id)
            .join(incident, incident.c.id == ticket.c.incident_id)
            .join(device, device.c.id == incident.c.device_id)
            .where(ticket_history.c.id > change)
            .order_by(ticket_history.c.id)
            .limit(limit)
        )
        with self._records.read() as connection:
            return [News._make(row) for row in connection.execute(query)]

    def newest_change(self) -> int:
        """The change number of the newest history line; 0 when there is none."""
        with self._records.read() as connection:
            return connection.execute(select(func.max(ticket_history.c.id))).scalar() or 0

    def open_count(self) -> int:
        """Tickets that are not closed."""
        with self._records.read() as connection:
            query = select(func.count()).select_from(ticket).where(ticket.c.state != State.CLOSED)
            return connection.execute(query).scalar_one()

    def act(self, ticket_id: int, action: str, *, actor: str, said: Mapping[str, Any], now: int) -> Ticket:
        """One action of a person. Raises NotFound, IllegalMove or MissingField; then nothing was changed.

        `said`: `note` (text), `clear` (true: "passengers out, lift clear"); anything else is kept as facts.
        """
        return again_after_clash(lambda: self._act(ticket_id, action, actor, said, now))

    def _act(self, ticket_id: int, action: str, actor: str, said: Mapping[str, Any], now: int) -> Ticket:
        with self._records.write() as connection:
            take_turn(connection)
            found = _get(connection, ticket_id)
            row = machine.move(action, State(found.state), needs_clear=found.needs_clear, said=said)
            if not row.by_person:
                raise IllegalMove(action, found.state, machine.allowed(State(found.state)))
            _step(connection, found.id, found.incident_id, row, found.state, actor=actor, said=said, now=now)
            return _get(connection, ticket_id)


def _step(
    connection: Connection,
    ticket_id: int,
    incident_id: int,
    row: machine.Move,
    state: str,
    *,
    actor: str,
    said: Mapping[str, Any],
    now: int,
) -> None:
    """Moves the ticket, if it still is where we saw it, and the incident with it when it closes."""
    moved = connection.execute(
        update(ticket).where(ticket.c.id == ticket_id, ticket.c.state == state).values(state=row.target, changed=now)
    )
    if moved.rowcount != 1:
        raise IllegalMove(row.action, "changed by somebody else a moment ago", ())
    facts = {name: value for name, value in said.items() if name != "note"}
    text = str(said.get("note") or "")
    _write(connection, ticket_id, row.action, state, row.target, actor=actor, note_text=text, facts=facts, now=now)
    if row.target is State.CLOSED:
        connection.execute(update(incident).where(incident.c.id == incident_id).values(closed=now, outcome=row.outcome))
    _tell(connection, ticket_id, row.target, now=now)


def _tell(connection: Connection, ticket_id: int, state: str, *, now: int) -> None:
    """The letter about a move."""
    cause = connection.execute(
        select(incident).join(ticket, ticket.c.incident_id == incident.c.id).where(ticket.c.id == ticket_id)
    )
    kind = "closed" if state == State.CLOSED else "changed"
    row = {str(name): value for name, value in cause.mappings().one().items()}
    draft, _ = outbox.draft(row, {"id": ticket_id, "state": state}, kind, active(connection, now))
    outbox.put(connection, [draft], now=now)


def _write(
    connection: Connection,
    ticket_id: int,
    action: str,
    from_state: str | None,
    to_state: str,
    *,
    actor: str,
    now: int,
    facts: Mapping[str, Any],
    note_text: str = "",
    device_ms: int | None = None,
) -> None:
    connection.execute(
        ticket_history.insert().values(
            ticket_id=ticket_id,
            at=now,
            device_ms=device_ms,
            actor=actor,
            action=action,
            from_state=from_state,
            to_state=to_state,
            note=note_text,
            facts=dict(facts),
        )
    )


def _get(connection: Connection, ticket_id: int) -> Ticket:
    row = connection.execute(_TICKETS.where(ticket.c.id == ticket_id)).first()
    if row is None:
        raise NotFound("ticket", ticket_id)
    return Ticket._make(row)
