"""Messages that could not become readings, with the reason: nothing that was acknowledged is lost.

Repeats of the same bytes on the same topic share a row and are counted, so a device that shouts the same nonsense all
day fills one row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, select

from core.reading import Rejected
from storage.records import Records, dialect_insert
from storage.tables import quarantine

HEAD_BYTES: Final = 4_096


class Row(NamedTuple):
    """One row of quarantine. `payload_head`: at most the first 4 KiB; `payload_bytes`: the whole length."""

    id: int
    topic: str
    payload_head: bytes
    payload_bytes: int
    digest: str
    reason: str
    first_rx: int
    last_rx: int
    times: int


class Quarantine:
    """Writes and reads of quarantine."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def keep(self, rejected: Sequence[Rejected]) -> None:
        """Returns when all of them are durable."""
        if not rejected:
            return
        with self._records.write() as connection:
            for one in rejected:
                statement = dialect_insert(connection, quarantine).values(
                    topic=_text(connection, one.topic[:1000]),
                    payload_head=one.payload[:HEAD_BYTES],
                    payload_bytes=len(one.payload),
                    digest=_digest(one),
                    reason=_text(connection, one.reason[:2000]),
                    first_rx=one.rx,
                    last_rx=one.rx,
                )
                again = {
                    "last_rx": statement.excluded.last_rx,
                    "reason": statement.excluded.reason,
                    "count": quarantine.c.count + 1,
                }
                connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=again))

    def find(self, *, limit: int = 200, before_id: int | None = None) -> list[Row]:
        """Newest first."""
        query = select(quarantine).order_by(quarantine.c.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(quarantine.c.id < before_id)
        with self._records.read() as connection:
            return [Row(*row) for row in connection.execute(query)]

    def totals(self) -> tuple[int, int]:
        """(rows, messages) kept."""
        with self._records.read() as connection:
            query = select(func.count(), func.coalesce(func.sum(quarantine.c.count), 0))
            rows, messages = connection.execute(query.select_from(quarantine)).one()
            return int(rows), int(messages)


def _text(connection: Connection, said: str) -> str:
    """PostgreSQL keeps no NUL in text: its picture stands for it. The head of the payload has the bytes themselves."""
    return said.replace("\0", "\u2400") if connection.dialect.name == "postgresql" else said


def _digest(one: Rejected) -> str:
    return hashlib.blake2b(one.topic.encode() + b"\0" + one.payload, digest_size=16).hexdigest()
