"""What must still be told to the world. Rows are written with the change they tell of, and claimed one by one.

A row that is written during a silence is held by it and told when the silence is over. What closes before anybody was
told of it is never told: its held rows are dropped, each with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, exists, func, or_, select, update

from core.topics import split_device_id
from storage.records import Records
from storage.silences import Silence, quieted_by
from storage.tables import outbox, silence
from storage.turns import CHUNK, batched, take_turn

CLAIM_MS: Final = 60_000
"""A claim older than this was left behind by a process that died: anybody may take the row again."""

_FIRST: Final = ("opened", "late")
CLOSED_UNTOLD: Final = "closed-while-silenced"
_CLAIM_LOCK: Final = 7_412_002
"""PostgreSQL: the number of the advisory lock of those who claim."""


class Letter(NamedTuple):
    """One row to be told."""

    id: int
    incident_id: int
    kind: str
    payload: Mapping[str, Any]
    attempts: int


class Draft(NamedTuple):
    """A letter that is about to be written. `held_by`: the silence that is on."""

    incident_id: int
    kind: str
    payload: Mapping[str, Any]
    held_by: int | None


def draft(
    incident: Mapping[str, Any], ticket: Mapping[str, Any], kind: str, silences: Sequence[Silence]
) -> tuple[Draft, Silence | None]:
    """The world must hear of this incident as it is now. `incident`, `ticket`: columns of the two rows."""
    device_id = incident["device_id"]
    payload = {
        "incident": incident["id"],
        "site": split_device_id(device_id)[0],
        "device": device_id,
        "part": incident["part"],
        "group": incident["fault_group"],
        "severity": incident["severity"],
        "title": {"zh": incident["title_zh"], "en": incident["title_en"]},
        "opened": incident["opened_device_ms"],
        "cleared": incident["cleared_device_ms"],
        "closed": incident["closed"],
        "outcome": incident["outcome"],
        "late": incident["late"],
        "ticket": ticket["id"],
        "ticket_state": ticket["state"],
    }
    by = quieted_by(silences, device_id, incident["fault_group"], incident["severity"]) if kind != "closed" else None
    return Draft(incident["id"], kind, payload, by.id if by else None), by


@dataclass
class _Row:
    """A letter of one incident: in the table already, or about to be written (`draft`)."""

    kind: str
    held_by: int | None
    waits: bool
    id: int | None = None
    draft: Draft | None = None
    released: bool = False
    dropped: bool = False


def put(connection: Connection, drafts: Sequence[Draft], *, now: int) -> None:
    """Writes letters inside the caller's transaction, in their order.

    A letter that may go out takes the held ones of its incident with it, or "changed" would be told before "opened".
    Nobody hears that something is closed that they never heard of.
    """
    trails = _trails(connection, sorted({one.incident_id for one in drafts if one.kind not in _FIRST}))
    written: list[_Row] = []
    for letter in drafts:
        trail = trails.setdefault(letter.incident_id, [])
        row = _Row(letter.kind, letter.held_by, True, draft=letter)
        if _follows(trail, row):
            trail.append(row)
            written.append(row)
    known = [row for trail in trails.values() for row in trail if row.id is not None]
    _settle(connection, [row.id for row in known if row.dropped], {"sent": now, "dropped": CLOSED_UNTOLD})
    _settle(connection, [row.id for row in known if row.released and not row.dropped], {"held_by": None})
    rows = [_values(row, row.draft, now) for row in written if row.draft is not None]
    if rows:
        connection.execute(outbox.insert(), rows)


def _follows(trail: Sequence[_Row], row: _Row) -> bool:
    """What a letter does to the earlier ones of its incident that are held; False: it must not be written."""
    held = [one for one in trail if one.waits and one.held_by is not None and not one.dropped]
    if row.kind == "closed":
        for one in held:
            one.dropped = True
        heard = [one.kind for one in trail if not one.dropped]
        return bool(heard) and heard[-1] != "closed"
    if row.kind == "cleared" and held:
        row.held_by = held[-1].held_by  # good news of what nobody heard of can wait with it
    if row.held_by is None:
        for one in held:
            one.held_by, one.released = None, True
    return True


def _trails(connection: Connection, incident_ids: Sequence[int]) -> dict[int, list[_Row]]:
    """The letters of incidents so far, oldest first; without those that were dropped."""
    found: dict[int, list[_Row]] = {}
    columns = (outbox.c.incident_id, outbox.c.id, outbox.c.kind, outbox.c.held_by, outbox.c.sent)
    for some in batched(incident_ids, CHUNK):
        query = select(*columns).where(outbox.c.incident_id.in_(some), outbox.c.dropped == "").order_by(outbox.c.id)
        for row in connection.execute(query):
            one = _Row(row.kind, row.held_by, row.sent is None, id=row.id)
            found.setdefault(row.incident_id, []).append(one)
    return found


def _settle(connection: Connection, ids: Sequence[int | None], values: Mapping[str, Any]) -> None:
    for some in batched(ids, CHUNK):
        connection.execute(update(outbox).where(outbox.c.id.in_(some)).values(values))


def _values(row: _Row, letter: Draft, now: int) -> dict[str, Any]:
    return {
        "incident_id": letter.incident_id,
        "kind": letter.kind,
        "payload": dict(letter.payload),
        "created": now,
        "held_by": row.held_by,
        "sent": now if row.dropped else None,
        "dropped": CLOSED_UNTOLD if row.dropped else "",
    }


class Outbox:
    """Claiming and settling of outbox rows."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def claim(self, who: str, *, now: int, limit: int = 100) -> list[Letter]:
        """The oldest untold rows, claimed by a conditional UPDATE so that two processes never tell the same one.

        Looks before it locks: an empty outbox costs one read. A row waits while an older one of its incident is
        claimed, or "closed" would be told before an "opened" that is tried again. A held row waits for the end of its
        silence. PostgreSQL: one claims at a time, or two that do not see each other's claims would tell the letters of
        one incident in the wrong order; rows that are being settled just now are passed over.
        """
        wanted = _wanted(now).limit(limit)
        with self._records.read() as connection:
            if connection.execute(wanted.limit(1)).first() is None:
                return []
        with self._records.write() as connection:
            take_turn(connection, _CLAIM_LOCK)
            # Two statements: PostgreSQL may run a locking subquery with a limit once for every row.
            ids = connection.execute(wanted.with_for_update(skip_locked=True)).scalars().all()
            rows = connection.execute(
                update(outbox)
                .where(outbox.c.id.in_(ids), outbox.c.sent.is_(None))
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
        """Rows not told yet, without those that a silence holds."""
        with self._records.read() as connection:
            waits = outbox.c.sent.is_(None) & outbox.c.held_by.is_(None)
            return connection.execute(select(func.count()).select_from(outbox).where(waits)).scalar_one()


def _wanted(now: int) -> Select[tuple[int]]:
    """Ids of the rows that may be told, oldest first."""
    over = select(silence.c.id).where(or_(silence.c.ended.is_not(None), silence.c.ends <= now))
    free = (
        outbox.c.sent.is_(None)
        & or_(outbox.c.claimed.is_(None), outbox.c.claimed < now - CLAIM_MS)
        & or_(outbox.c.held_by.is_(None), outbox.c.held_by.in_(over))
    )
    older = outbox.alias()
    overtakes = exists().where(
        older.c.incident_id == outbox.c.incident_id,
        older.c.id < outbox.c.id,
        older.c.sent.is_(None),
        older.c.claimed >= now - CLAIM_MS,
    )
    return select(outbox.c.id).where(free, ~overtakes).order_by(outbox.c.id)
