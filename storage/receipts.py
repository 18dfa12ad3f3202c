"""When messages without a usable clock came first, so that their redelivery lands on the same point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import delete, select

from core.reading import Receipt
from storage.records import Records, dialect_insert
from storage.tables import first_receipt

KEPT_MS: Final = 7 * 86_400_000
"""Longer than brokers keep a session for us."""


class Receipts:
    """First receive times by message digest."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def settle(self, receipts: Sequence[Receipt]) -> list[int]:
        """The receive time (Unix ms) that each message is kept under: its first one where it is a repeat."""
        settled = []
        with self._records.write() as connection:
            for one in receipts:
                insert = dialect_insert(connection, first_receipt).values(digest=one.digest, rx=one.rx)
                if one.may_repeat:
                    insert = insert.on_conflict_do_nothing()
                else:
                    insert = insert.on_conflict_do_update(index_elements=["digest"], set_={"rx": one.rx})
                connection.execute(insert)
                known = select(first_receipt.c.rx).where(first_receipt.c.digest == one.digest)
                settled.append(connection.execute(known).scalar_one())
        return settled

    def known(self, digests: Sequence[str]) -> dict[str, int]:
        """First receive times (Unix ms) of those messages that came without a usable clock before."""
        query = select(first_receipt.c.digest, first_receipt.c.rx).where(first_receipt.c.digest.in_(digests))
        with self._records.read() as connection:
            return {row.digest: row.rx for row in connection.execute(query)}

    def forget(self, *, now: int) -> None:
        """Drops receipts that no broker will ask for again."""
        with self._records.write() as connection:
            connection.execute(delete(first_receipt).where(first_receipt.c.rx < now - KEPT_MS))
