"""Places, contractors and devices. Devices that nobody registered are kept too, once they are heard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table, select
from sqlalchemy.exc import IntegrityError

from core.errors import NotFound, SettingsError
from storage.records import Records, dialect_insert
from storage.register_file import RegisterFile
from storage.tables import building, contractor, device, site


class Device(NamedTuple):
    """One device as the register knows it."""

    id: str
    site_id: str
    kind: str
    zh: str
    en: str
    building_id: str | None
    contractor_id: str | None
    registered: bool
    statics: Mapping[str, Any]
    first_seen: int


class Site(NamedTuple):
    """One neighbourhood."""

    id: str
    zh: str
    en: str
    street_zh: str
    street_en: str
    latitude: float | None
    longitude: float | None
    zone: str
    """IANA name, such as `Asia/Shanghai`."""


WHOLE_SITE: Final = "site"
"""The kind of the row that stands for a whole site, `fenghe.*`: what happens to all of it has its incident there."""


class Registry:
    """Reads and writes of the register."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def sites(self) -> list[Site]:
        """Registered sites, by id."""
        with self._records.read() as connection:
            return [Site(*row) for row in connection.execute(select(site).order_by(site.c.id))]

    def buildings(self) -> dict[str, tuple[str, str]]:
        """Names (zh, en) by building id."""
        with self._records.read() as connection:
            rows = connection.execute(select(building.c.id, building.c.zh, building.c.en))
            return {row.id: (row.zh, row.en) for row in rows}

    def contractors(self) -> dict[str, tuple[str, str]]:
        """Names (zh, en) by contractor id."""
        with self._records.read() as connection:
            rows = connection.execute(select(contractor.c.id, contractor.c.zh, contractor.c.en))
            return {row.id: (row.zh, row.en) for row in rows}

    def devices(
        self,
        *,
        site_id: str | None = None,
        kind: str | None = None,
        after_id: str | None = None,
        limit: int | None = None,
        whole_sites: bool = False,
    ) -> list[Device]:
        """Devices by id, unregistered ones too; `after_id` pages on. `whole_sites`: also the rows `SITE.*`."""
        query = select(device).order_by(device.c.id).limit(limit)
        if not whole_sites:
            query = query.where(device.c.kind != WHOLE_SITE)
        if after_id is not None:
            query = query.where(device.c.id > after_id)
        if site_id is not None:
            query = query.where(device.c.site_id == site_id)
        if kind is not None:
            query = query.where(device.c.kind == kind)
        with self._records.read() as connection:
            return [Device(*row) for row in connection.execute(query)]

    def device(self, device_id: str) -> Device:
        """Raises NotFound."""
        with self._records.read() as connection:
            row = connection.execute(select(device).where(device.c.id == device_id)).first()
        if row is None:
            raise NotFound("device", device_id)
        return Device(*row)

    def heard(self, devices: Iterable[tuple[str, str]], *, now: int) -> None:
        """Keeps devices (id, kind) that spoke; those not in the register yet become unregistered ones.

        A whole site (`SITE.*`, kind `site`) gets its row as well.
        """
        known = sorted(devices, key=itemgetter(0))
        rows = [
            {
                "id": device_id,
                "site_id": device_id.partition(".")[0],
                "kind": kind,
                "registered": False,
                "statics": {},
                "first_seen": now,
            }
            for device_id, kind in known
            if kind != WHOLE_SITE
        ]
        with self._records.write() as connection:
            if rows:
                connection.execute(dialect_insert(connection, device).on_conflict_do_nothing(), rows)
            add_whole_sites(connection, [device_id for device_id, kind in known if kind == WHOLE_SITE], now=now)

    def register(self, file: RegisterFile, *, now: int) -> dict[str, int]:
        """Adds or updates all entries in one transaction; returns how many of each.

        Devices become registered; one that was heard before keeps the time it was first seen. Raises SettingsError
        when an entry names a building or contractor that is nowhere.
        """
        rows = file.rows(now=now)
        try:
            with self._records.write() as connection:
                _upsert(connection, site, rows["sites"])
                _upsert(connection, building, rows["buildings"])
                _upsert(connection, contractor, rows["contractors"])
                devices = [{**row, "registered": True} for row in rows["devices"]]
                _upsert(connection, device, devices, keep=("first_seen",))
        except IntegrityError:
            raise SettingsError("register: an entry names a site, building or contractor that is not there") from None
        return {name: len(entries) for name, entries in rows.items()}


def add_whole_sites(connection: Connection, device_ids: Iterable[str], *, now: int) -> None:
    """The rows of whole sites (ids `SITE.*`) among these, where they are missing: what an incident there refers to."""
    rows = [
        {
            "id": device_id,
            "site_id": device_id.removesuffix(".*"),
            "kind": WHOLE_SITE,
            "zh": "整个小区",
            "en": "whole site",
            "registered": True,
            "statics": {},
            "first_seen": now,
        }
        for device_id in sorted(device_ids)
        if device_id.endswith(".*")
    ]
    if rows:
        connection.execute(dialect_insert(connection, device).on_conflict_do_nothing(), rows)


def _upsert(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, keep: Sequence[str] = ()
) -> None:
    if not rows:
        return
    statement = dialect_insert(connection, table)
    columns = {name for row in rows for name in row} - {"id", *keep}
    changed = {name: statement.excluded[name] for name in sorted(columns)}
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed), list(rows))
