"""Silences and maintenance windows: times when nobody is told of a fault. Faults are followed all the same.

Life safety is special. A plain silence holds a P0 back only when it names the device and says so (`include_p0`). A
maintenance window of one device holds back everything of it: the people who would be told stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from sqlalchemy import BigInteger, BindParameter, ColumnElement, Connection, and_, bindparam, or_, select, update

from core.errors import MissingField, NotFound
from core.topics import split_device_id
from storage.records import Records
from storage.tables import silence

Kind = Literal["silence", "maintenance"]
LONGEST_MS: Final = 366 * 86_400_000
"""What is silenced for longer than a year is forgotten, not silenced."""


class Silence(NamedTuple):
    """One silence or maintenance window. Times: Unix ms; it holds from `starts` until before `ends`."""

    id: int
    site_id: str
    device_id: str | None
    """None: all devices of the site."""
    fault_group: str | None
    """None: all faults."""
    kind: str
    include_p0: bool
    starts: int
    ends: int
    reason: str
    created_by: str
    created: int
    ended: int | None
    """When somebody ended it before its time."""

    def covers(self, device_id: str, group: str, severity: str) -> bool:
        """Whether it is about this fault; the time is not asked."""
        if self.site_id != split_device_id(device_id)[0]:
            return False
        if self.device_id not in {None, device_id} or self.fault_group not in {None, group}:
            return False
        if severity != "P0":
            return True
        return self.device_id is not None and (self.kind == "maintenance" or self.include_p0)


class Silences:
    """Reads and writes of silences."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def add(
        self,
        *,
        site_id: str,
        starts: int,
        ends: int,
        reason: str,
        created_by: str,
        now: int,
        device_id: str | None = None,
        fault_group: str | None = None,
        kind: Kind = "silence",
        include_p0: bool = False,
    ) -> Silence:
        """A new one. Raises MissingField naming what is wrong; then nothing was written."""
        row = {
            "site_id": site_id,
            "device_id": device_id,
            "fault_group": fault_group,
            "kind": kind,
            "include_p0": include_p0,
            "starts": starts,
            "ends": ends,
            "reason": reason.strip(),
            "created_by": created_by.strip(),
            "created": now,
        }
        _check(Silence(id=0, ended=None, **row), now)  # type: ignore[arg-type]
        with self._records.write() as connection:
            return Silence(*connection.execute(silence.insert().values(row).returning(silence)).one())

    def get(self, silence_id: int) -> Silence:
        """Raises NotFound."""
        with self._records.read() as connection:
            row = connection.execute(select(silence).where(silence.c.id == silence_id)).first()
        if row is None:
            raise NotFound("silence", silence_id)
        return Silence(*row)

    def end(self, silence_id: int, *, now: int) -> Silence:
        """Ends it now; one that is over already stays as it was. Raises NotFound."""
        with self._records.write() as connection:
            connection.execute(
                update(silence)
                .where(silence.c.id == silence_id, silence.c.ended.is_(None), silence.c.ends > now)
                .values(ended=now)
            )
        return self.get(silence_id)

    def find(
        self,
        *,
        active_at: int | None = None,
        site_id: str | None = None,
        device_id: str | None = None,
        limit: int = 200,
        before_id: int | None = None,
    ) -> list[Silence]:
        """Newest first; `before_id` pages on. `device_id`: those of the device itself and of its whole site."""
        query = select(silence).order_by(silence.c.id.desc()).limit(limit)
        if active_at is not None:
            query = query.where(is_active(active_at))
        if site_id is not None:
            query = query.where(silence.c.site_id == site_id)
        if device_id is not None:
            own = and_(silence.c.device_id.is_(None), silence.c.site_id == split_device_id(device_id)[0])
            query = query.where(or_(silence.c.device_id == device_id, own))
        if before_id is not None:
            query = query.where(silence.c.id < before_id)
        with self._records.read() as connection:
            return [Silence(*row) for row in connection.execute(query)]


def is_active(now: int | BindParameter[int]) -> ColumnElement[bool]:
    """The condition that a silence holds at a time."""
    return and_(silence.c.starts <= now, silence.c.ends > now, silence.c.ended.is_(None))


_ACTIVE: Final = select(silence).where(is_active(bindparam("now", type_=BigInteger))).order_by(silence.c.id)


def active(connection: Connection, now: int) -> Sequence[Silence]:
    """Those that hold now, oldest first: what `quieted_by` asks."""
    return [Silence(*row) for row in connection.execute(_ACTIVE, {"now": now})]


def quieted_by(silences: Iterable[Silence], device_id: str, group: str, severity: str) -> Silence | None:
    """The one that holds a fault back for longest, or None."""
    covering = [one for one in silences if one.covers(device_id, group, severity)]
    return max(covering, key=lambda one: one.ends, default=None)


def quiet(connection: Connection, device_id: str, group: str, severity: str, now: int) -> Silence | None:
    """The silence that holds this fault back now, or None."""
    return quieted_by(active(connection, now), device_id, group, severity)


def _check(one: Silence, now: int) -> None:
    action = one.kind
    for name in ("reason", "created_by"):
        if not getattr(one, name):
            raise MissingField(action, name, "say who and why in a few words")
    if one.device_id is not None and split_device_id(one.device_id)[0] != one.site_id:
        raise MissingField(action, "device", f"the device is not of the site '{one.site_id}'")
    if one.include_p0 and one.device_id is None:
        raise MissingField(action, "include_p0", "alarms of life safety are silenced for one named device only")
    if one.ends <= one.starts or one.ends <= now:
        raise MissingField(action, "ends", "it must end after it starts, and not in the past")
    if one.ends - one.starts > LONGEST_MS:
        raise MissingField(action, "ends", "it must end within a year of its start")
