"""What writers of records share: taking turns on PostgreSQL, trying again after a clash, and lists in portions.

Live pages follow the ids of ticket history, so these must become visible in their order. SQLite has one writer at a
time anyway. PostgreSQL gives ids out before the commit: there, whoever writes history takes an advisory lock first and
keeps it until the commit. That also makes "is one open already?" and the answer one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from core.errors import StoreUnavailable

HISTORY_LOCK: Final = 7_412_001
"""The number of the advisory lock of those who write history; any number that nobody else of this database uses."""

WAIT_MS: Final = 5_000
"""Turns take milliseconds. Who waits longer gets StoreUnavailable."""

CHUNK: Final = 500
"""Values in one IN list: SQLite takes 32 766 parameters, PostgreSQL 65 535."""

TRIES: Final = 5
_CLASHES: Final = ("23505", "40001", "40P01")
"""SQLSTATE: unique violation, serialization failure, deadlock. The other side has won, and a second look sees it."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def take_turn(connection: Connection, number: int = HISTORY_LOCK) -> None:
    """Waits until nobody else of this turn is writing; it ends with the transaction. The first statement of one."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = {WAIT_MS}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


def again_after_clash(act: Callable[[], Answer]) -> Answer:
    """Does it, and does it anew when another process came between: a whole transaction each time."""
    for _ in range(TRIES - 1):
        try:
            return act()
        except (DBAPIError, StoreUnavailable) as error:
            if not _is_clash(error):
                raise
    return act()


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in portions."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _is_clash(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error, StoreUnavailable) else error
    origin = cause.orig if isinstance(cause, DBAPIError) else None
    code = getattr(origin, "sqlstate", None)
    return code in _CLASHES or getattr(origin, "sqlite_errorname", "") == "SQLITE_CONSTRAINT_UNIQUE"
