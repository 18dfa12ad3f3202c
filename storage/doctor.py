"""`tizhuang doctor` at the databases: what they would lose, and whose clock is wrong.

Nothing is changed but what a start of the service would change, and a point of our own in InfluxDB, which is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from core.clock import Clock
from core.doctor import Finding, Level
from core.errors import DataFolderError, StoreUnavailable
from core.settings import Settings
from storage.doctor_influx import check_influx
from storage.drivers import open_series
from storage.folder import held
from storage.records import address, open_records
from storage.series import PartValues

CLOCK_OFF_MS: Final = 60_000
NAMED: Final = 5
MB: Final = 1_000_000


def check_store(settings: Settings, now: Clock) -> Iterator[Finding]:
    """All findings, in order. Raises SettingsError."""
    with ExitStack() as stack:
        running, folder = _folder(stack, settings.data.dir)
        yield folder
        yield _disk(settings)
        yield _records(settings)
        readable = True
        if settings.influx.url:
            for finding in check_influx(settings, now):
                readable = readable and finding.level is not Level.LOST
                yield finding
            yield _devices(settings) if readable else _unread("InfluxDB cannot be read")
        elif running:
            yield Finding("series.duckdb", Level.OK, "held by the running service, which is how it should be")
            yield _unread("the running service holds the series file", "stop the service for a moment")
        else:
            yield from _duckdb(settings)
    yield Finding(
        "host.clock",
        Level.UNKNOWN,
        "whether this machine's clock is right cannot be seen from here",
        "run timedatectl: it should say 'System clock synchronized: yes'",
    )


def _folder(stack: ExitStack, folder: Path) -> tuple[bool, Finding]:
    """Whether a service runs on it. If not, none can start until we are through."""
    if not folder.exists():
        return False, Finding("data.folder", Level.OK, f"{folder} is not there yet; the first start makes it")
    try:
        stack.enter_context(held(folder))
    except DataFolderError as error:
        if folder.is_dir() and os.access(folder, os.W_OK):
            return True, Finding("data.folder", Level.OK, f"{error}, which is the service")
        mend = "data.dir: a folder that the service's user may write to"
        return False, Finding("data.folder", Level.LOST, str(error), mend)
    return False, Finding("data.folder", Level.OK, f"{folder} can be written, and no service runs on it")


def _disk(settings: Settings) -> Finding:
    """The spool may grow to its limit only where there is room for it."""
    folder = settings.data.dir
    there = next(one for one in (folder.resolve(), *folder.resolve().parents) if one.exists())
    free_mb = shutil.disk_usage(there).free // MB
    held_mb = sum(one.stat().st_size for one in (folder / "spool").glob("*.spool")) // MB
    limit_mb = settings.spool.limit_mb
    wanted_mb = limit_mb - held_mb
    waiting = f", {held_mb} MB of it in use" if held_mb else ""
    found = f"{free_mb} MB free, and the spool may take {limit_mb} MB{waiting} while the series store is away"
    if free_mb >= wanted_mb:
        return Finding("data.disk", Level.OK, found)
    mend = "spool.limit_mb, or a larger disk for data.dir"
    if free_mb >= wanted_mb / 10:
        return Finding("data.disk", Level.WARNING, f"{found}: the disk is full before the spool is", mend)
    return Finding("data.disk", Level.LOST, f"{found}: the disk is as good as full, and the records are on it", mend)


def _records(settings: Settings) -> Finding:
    url = address(settings.database.url, settings.data.dir)
    path = settings.data.dir / "records.sqlite"
    if not settings.database.url and not path.exists():
        return Finding("data.records", Level.OK, "not there yet; the first start makes them")
    try:
        if _is_empty(url):
            return Finding("data.records", Level.OK, "empty; the first start makes the tables")
        records = open_records(url)
        try:
            with records.write():  # nothing: only whether we may
                pass
        finally:
            records.close()
    except (DataFolderError, StoreUnavailable) as error:
        mend = "tizhuang migrate" if "migrate" in str(error) else "database.url or data.dir, and its permissions"
        return Finding("data.records", Level.LOST, str(error), mend)
    return Finding("data.records", Level.OK, "can be written, and the tables are up to date")


def _is_empty(url: str) -> bool:
    """Opening an empty database would make the tables: that is not for us to do."""
    engine = None
    try:
        engine = create_engine(url)
        return not inspect(engine).get_table_names()
    except (SQLAlchemyError, ImportError):
        return False  # opening it tells why
    finally:
        if engine is not None:
            engine.dispose()


def _duckdb(settings: Settings) -> Iterator[Finding]:
    path = settings.data.dir / "series.duckdb"
    if not path.exists():
        yield Finding("series.duckdb", Level.OK, "not there yet; the first start makes it")
        yield _unread("nothing is stored yet")
        return
    try:
        store = open_series(settings)
    except (DataFolderError, StoreUnavailable) as error:
        yield Finding(
            "series.duckdb",
            Level.LOST,
            str(error),
            "data.dir: its permissions, a copy of the folder, or a newer version",
        )
        yield _unread("the series file cannot be read")
        return
    try:
        values = store.last_values()
    finally:
        store.close()
    size_mb = path.stat().st_size / MB
    yield Finding("series.duckdb", Level.OK, f"opens: {size_mb:.1f} MB, {len({key[0] for key in values})} devices")
    yield _clocks(values)


def _devices(settings: Settings) -> Finding:
    store = open_series(settings)
    try:
        return _clocks(store.last_values())
    finally:
        store.close()


def _clocks(values: Mapping[tuple[str, str], PartValues]) -> Finding:
    """By the newest values: how far behind our receive time a device's own time is. Late data looks the same."""
    newest: dict[str, tuple[int, int]] = {}
    for (device_id, _), part in values.items():
        if part.rx is not None:
            newest[device_id] = max(newest.get(device_id, (0, 0)), (part.rx, part.rx - part.ts))
    behind = {device_id: late for device_id, (_, late) in newest.items()}
    if not behind:
        return _unread("no device has spoken yet")
    middle = f"median {median(behind.values()) / 1000:.1f} s"
    off = sorted((one for one in behind if abs(behind[one]) > CLOCK_OFF_MS), key=lambda one: -abs(behind[one]))
    if not off:
        return Finding("devices.clock", Level.OK, f"{len(behind)} devices, all within 60 s of ours ({middle})")
    worst = ", ".join(f"{one} {_off(behind[one])}" for one in off[:NAMED]) + (", ..." if len(off) > NAMED else "")
    return Finding(
        "devices.clock",
        Level.WARNING,
        f"{len(off)} of {len(behind)} devices are off by more than 60 s, or send late ({middle}): {worst}",
        "NTP on the device or its gateway: rules and tickets go by the device's clock",
    )


def _off(late_ms: int) -> str:
    seconds = abs(late_ms) / 1000
    span = f"{seconds:.0f} s" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
    return f"{span} {'behind' if late_ms > 0 else 'ahead'}"


def _unread(why: str, mend: str = "") -> Finding:
    return Finding("devices.clock", Level.UNKNOWN, why, mend)
