"""What must still be told to the world. Rows are written with the change they tell of, and claimed one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, exists, func, or_, select, update

from storage.records import Records
from storage.tables import device, incident, outbox, ticket

CLAIM_MS: Final = 60_000
"""A claim older than this was left behind by a process that died: anybody may take the row again."""


class Letter(NamedTuple):
    """One row to be told."""

    id: int
    incident_id: int
    kind: str
    payload: Mapping[str, Any]
    attempts: int


def put(connection: Connection, incident_id: int, kind: str, *, now: int) -> None:
    """Writes down, inside the caller's transaction, that the world must hear of this incident as it is now."""
    row = connection.execute(
        select(incident, device.c.site_id, ticket.c.id.label("ticket_id"), ticket.c.state.label("ticket_state"))
        .join(device, device.c.id == incident.c.device_id)
        .join(ticket, ticket.c.incident_id == incident.c.id)
        .where(incident.c.id == incident_id)
    ).one()
    payload = {
        "incident": row.id,
        "site": row.site_id,
        "device": row.device_id,
        "part": row.part,
        "group": row.fault_group,
        "severity": row.severity,
        "title": {"zh": row.title_zh, "en": row.title_en},
        "opened": row.opened_device_ms,
        "cleared": row.cleared_device_ms,
        "closed": row.closed,
        "outcome": row.outcome,
        "late": row.late,
        "ticket": row.ticket_id,
        "ticket_state": row.ticket_state,
    }
    connection.execute(outbox.insert().values(incident_id=incident_id, kind=kind, payload=payload, created=now))


class Outbox:
    """Claiming and settling of outbox rows."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def claim(self, who: str, *, now: int, limit: int = 100) -> list[Letter]:
        """The oldest untold rows, claimed by a conditional UPDATE so that two processes never tell the same one.

        Looks before it locks: an empty outbox costs one read. A row waits while an older one of its incident is
        claimed, or "closed" would be told before an "opened" that is tried again.
        """
        free = (outbox.c.sent.is_(None)) & or_(outbox.c.claimed.is_(None), outbox.c.claimed < now - CLAIM_MS)
        older = outbox.alias()
        overtakes = exists().where(
            older.c.incident_id == outbox.c.incident_id,
            older.c.id < outbox.c.id,
            older.c.sent.is_(None),
            older.c.claimed >= now - CLAIM_MS,
        )
        wanted = select(outbox.c.id).where(free, ~overtakes).order_by(outbox.c.id).limit(limit)
        with self._records.read() as connection:
            if connection.execute(wanted.limit(1)).first() is None:
                return []
        with self._records.write() as connection:
            rows = connection.execute(
                update(outbox)
                .where(outbox.c.id.in_(wanted), free)
                .values(claimed_by=who, claimed=now, attempts=outbox.c.attempts + 1)
                .returning(outbox.c.id, outbox.c.incident_id, outbox.c.kind, outbox.c.payload, outbox.c.attempts)
            ).all()
        return sorted((Letter(*row) for row in rows), key=lambda letter: letter.id)

    def sent(self, letter_id: int, *, now: int) -> None:
        with self._records.write() as connection:
            connection.execute(update(outbox).where(outbox.c.id == letter_id).values(sent=now, last_error=""))

    def failed(self, letter_id: int, error: str) -> None:
        """Gives the row back; it is tried again when its claim runs out."""
        with self._records.write() as connection:
            connection.execute(update(outbox).where(outbox.c.id == letter_id).values(last_error=error[:500]))

    def waiting(self) -> int:
        """Rows not told yet."""
        with self._records.read() as connection:
            return connection.execute(
                select(func.count()).select_from(outbox).where(outbox.c.sent.is_(None))
            ).scalar_one()
