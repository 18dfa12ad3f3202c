"""The embedded series store: one DuckDB file, one wide table per device kind and one for events.

Tables are append-only; a point that was written again is folded together when it is read (last write wins, field by
field), which is what InfluxDB does too. Only one process can hold the file, so the last values of every part are kept
in memory (`storage.duckdb_last`). Minute and hour rows are made in `storage.duckdb_rollup`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import duckdb

from core.errors import DataFolderError, StoreUnavailable
from core.kinds import KINDS, all_fields
from core.reading import Batch, Event, Reading, Value
from storage import duckdb_history, duckdb_last, duckdb_rollup
from storage.duckdb_rollup import CHUNK_ROWS, SQL_TYPES
from storage.duckdb_window import partials
from storage.history import Item, Spoken
from storage.last_values import HeardEvents, identity
from storage.rollup import advanced, merge, plan
from storage.series import HOUR_MS, Bucket, Horizon, PartValues, Refused
from storage.unrolled import Unrolled

FORMAT: Final = 2
"""Raised when the tables change in a way that a program of before must not write to any more."""

_OLDEST_FORMAT: Final = 1
"""Without roll-ups. It lacks tables only, and these are added when it is opened."""

_POINT_COLUMNS: Final = {
    "device_id": "VARCHAR",
    "part": "VARCHAR",
    "ts": "BIGINT",
    "rx": "BIGINT",
    "seq": "BIGINT",
    "clock_ok": "BOOLEAN",
    "retained": "BOOLEAN",
    "extra": "VARCHAR",
}
_EVENT_COLUMNS: Final = {
    "device_id": "VARCHAR",
    "kind": "VARCHAR",
    "part": "VARCHAR",
    "ts": "BIGINT",
    "rx": "BIGINT",
    "seq": "BIGINT",
    "id": "VARCHAR",
    "table_name": "VARCHAR",
    "code": "VARCHAR",
    "fault": "VARCHAR",
    "raised": "BOOLEAN",
    "clock_ok": "BOOLEAN",
    "retained": "BOOLEAN",
}


class DuckDbSeries:
    """Keeps the promises of `storage.series.SeriesStore`."""

    def __init__(self, path: Path, *, chunk_rows: int = CHUNK_ROWS) -> None:
        """`chunk_rows`: raw rows that are rolled up at once."""
        self._path = path
        self._chunk_rows = chunk_rows
        self._lock = threading.Lock()
        self._last_lock = threading.Lock()
        """For last values: who asks for them, or adds to them, does not wait for a write that hangs."""
        self._rolling = threading.Lock()
        """Held while rows are rolled up or dropped; taken before the other one."""
        self._closed = False
        self._heard = HeardEvents()
        try:
            self._connection = self._connect()
        except duckdb.Error as error:
            raise DataFolderError(f"cannot open {path}: {_first_line(error)}") from error
        try:
            self._prepare()
            hours = self._connection.execute("SELECT DISTINCT hour FROM unrolled ORDER BY hour").fetchall()
            self._unrolled = Unrolled(hour for (hour,) in hours)
            self._horizon = Horizon(*self._connection.execute("SELECT raw, minute, hour FROM horizon").fetchall()[0])
            self._last, self._parts = duckdb_last.load(self._connection, self._unrolled.hours())
        except BaseException:
            self._connection.close()
            raise

    def write(self, batch: Batch) -> list[Refused]:
        readings = batch.readings
        with self._lock:
            unmarked = self._unrolled.touch(readings)  # before a reader can see what is written
            try:
                with _transaction(self._connection) as connection:
                    for kind in {reading.kind for reading in readings}:
                        _insert_readings(connection, kind, [one for one in readings if one.kind == kind])
                    _insert(connection, "event", _EVENT_COLUMNS, [tuple(event) for event in batch.events])
                    _insert(connection, "unrolled", {"hour": "BIGINT"}, [(hour,) for hour in unmarked])
            except (duckdb.DataError, duckdb.ProgrammingError):
                raise  # the values are at fault, and no retry will make them fit
            except duckdb.Error as error:
                self._mend()
                raise self._unavailable(error) from error
            self._unrolled.marked(unmarked)
            with self._last_lock:
                self._last.take(readings)
                self._last.take_events(batch.events)
                self._heard.written(batch.events)
        return []

    def heard(self, batch: Batch) -> None:
        with self._last_lock:
            self._last.take(batch.readings)
            self._last.take_events(batch.events)
            self._heard.take(batch.events)

    def window(
        self, kind: str, device_id: str, part: str, field: str, *, start: int, end: int, step: int
    ) -> list[Bucket]:
        while True:
            seen = self._horizon, self._unrolled.of(device_id)
            with self._told(), self._connection.cursor() as cursor:
                _snapshot(cursor)
                if (self._horizon, self._unrolled.of(device_id)) == seen:
                    slices = plan(start, end, step, unrolled=seen[1], horizon=seen[0])
                    asked = kind, device_id, part, field
                    return merge(one for cut in slices for one in partials(cursor, asked, cut, start, step))

    def last_values(self, device_ids: Sequence[str] | None = None) -> dict[tuple[str, str], PartValues]:
        with self._last_lock:
            return self._last.of(device_ids)

    def last_seen(self) -> dict[str, int]:
        with self._last_lock:
            return self._last.seen()

    def events(self, device_id: str, *, start: int, end: int, limit: int) -> list[Event]:
        rows = self._query(
            f"""
            SELECT {_names(_EVENT_COLUMNS)} FROM event WHERE device_id = ? AND ts >= ? AND ts < ?
            QUALIFY row_number() OVER (PARTITION BY part, id, ts, raised ORDER BY rowid) = 1
            ORDER BY ts DESC, rowid DESC LIMIT ?
            """,  # noqa: S608 - only our own column names
            [device_id, start, end, limit],
        )
        return [Event(*row) for row in rows]

    def history(
        self,
        start: int,
        end: int,
        *,
        device_ids: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        fields: Collection[str] | None = None,
    ) -> Iterator[Item]:
        return duckdb_history.read(self._connection, start, end, (device_ids, kinds, fields))

    def spoken(self, start: int, end: int) -> list[Spoken]:
        return duckdb_history.spoken(self._connection, start, end)

    def newest_events(self) -> list[Event]:
        with self._last_lock:  # before the database is asked: what is written in between is in both
            heard = self._heard.copy()
        rows = self._query(
            f"""
            WITH once AS (
                SELECT *, min(rowid) OVER (PARTITION BY device_id, part, id, ts, raised) AS came
                FROM event WHERE fault IS NOT NULL
            )
            SELECT {_names(_EVENT_COLUMNS)} FROM once
            QUALIFY row_number() OVER (PARTITION BY device_id, part, fault ORDER BY ts DESC, came DESC) = 1
            """,  # noqa: S608 - only our own column names
            [],
        )
        return heard.joined([Event(*row) for row in rows], self._has)

    def _has(self, event: Event) -> bool:
        sql = "SELECT count(*) FROM event WHERE device_id = ? AND part = ? AND id = ? AND ts = ? AND raised = ?"
        return bool(self._query(sql, list(identity(event)))[0][0])

    def unrolled(self) -> list[int]:
        return self._unrolled.hours()

    def roll_up(self, hour: int) -> None:
        with self._rolling:
            with self._lock:  # nobody is half-way through a write
                if hour not in self._unrolled:
                    return
                devices = self._unrolled.begin(hour)
            with self._told(), self._connection.cursor() as cursor:
                for kind in KINDS:
                    for chunk in duckdb_rollup.chunks(cursor, kind, hour, devices, self._chunk_rows):
                        self._roll_chunk(cursor, kind, hour, chunk)
            with self._told(), self._lock:
                if self._unrolled.rolled(hour):
                    self._connection.execute("DELETE FROM unrolled WHERE hour = ?", [hour])
                    self._unrolled.forget(hour)

    def expire(self, before: Horizon) -> None:
        with self._rolling:
            with self._told(), self._lock:
                horizon = advanced(self._horizon, before, self._unrolled.hours())
                with _transaction(self._connection) as connection:
                    connection.execute("UPDATE horizon SET raw = ?, minute = ?, hour = ?", list(horizon))
                self._horizon = horizon  # from here on nobody asks for what goes now
                late = [hour for hour in self._unrolled.hours() if hour < horizon.raw]
                cursor = self._connection.cursor()
                _snapshot(cursor)  # what is written from here on stays, whatever its time
            with self._told(), cursor:
                duckdb_rollup.drop(cursor, horizon, late)
                cursor.commit()

    def close(self) -> None:
        self._closed = True  # a roll-up ends at its next chunk
        with self._rolling, self._lock:
            self._connection.close()

    def _roll_chunk(self, cursor: duckdb.DuckDBPyConnection, kind: str, hour: int, devices: list[str]) -> None:
        """Some devices of an hour: their rows and their last values change at once."""
        if self._closed:
            raise StoreUnavailable(f"series store {self._path.name}: closed during a roll-up")
        duckdb_rollup.prepare_chunk(cursor, kind, hour, devices, self._horizon)
        parts = duckdb_rollup.parts_of(cursor)
        with self._lock, self._last_lock:
            saved = [duckdb_last.row(key, self._parts[key]) for key in parts]
        with _transaction(cursor):
            duckdb_rollup.replace_chunk(cursor, kind, hour, devices, self._horizon)
            cursor.execute("DELETE FROM last_part WHERE (device_id, part) IN (SELECT (device_id, part) FROM points)")
            _insert(cursor, "last_part", duckdb_last.COLUMNS, saved)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """DuckDB's errors in our words. Not for those who hold the lock."""
        try:
            yield
        except duckdb.Error as error:
            with self._lock:
                self._mend()
            raise self._unavailable(error) from error

    def _unavailable(self, error: duckdb.Error) -> StoreUnavailable:
        return StoreUnavailable(f"series store {self._path.name}: {_first_line(error)}")

    def _connect(self) -> duckdb.DuckDBPyConnection:
        # Small on purpose: the store is a guest in the service's process.
        settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": 2,
            "memory_limit": "256MB",
            "autoinstall_known_extensions": False,  # nothing is fetched from the internet, whatever the file is
        }
        return duckdb.connect(str(self._path), config=settings)

    def _mend(self) -> None:
        """DuckDB gives up a database for good after some failures, a full disk among them: then it is opened anew."""
        if self._closed:
            return
        try:
            self._connection.execute("SELECT version FROM format")
        except duckdb.Error:
            with suppress(duckdb.Error):
                self._connection.close()
            with suppress(duckdb.Error):  # still full: the next write tries again
                self._connection = self._connect()

    def _prepare(self) -> None:
        """Creates what is missing. Fields that a newer contract added become new columns."""
        run = self._connection.execute
        tables = {name for (name,) in run("SELECT table_name FROM information_schema.tables").fetchall()}
        if tables and "format" not in tables:
            raise DataFolderError(f"{self._path} holds tables of another program; it was left as it is")
        found = run("SELECT max(version) FROM format").fetchone() if tables else None
        version = found[0] if found else None
        if version is not None and not _OLDEST_FORMAT <= version <= FORMAT:
            age = "an older" if version < FORMAT else "a newer"
            raise DataFolderError(f"{self._path} was written by {age} version (format {version}, here {FORMAT})")
        with _transaction(self._connection):
            self._table("event", _EVENT_COLUMNS)
            for kind in KINDS:
                columns = {name: SQL_TYPES[spec.type] for name, spec in all_fields(kind).items()}
                self._table(kind, _POINT_COLUMNS | columns)
            for name, columns in duckdb_rollup.tables().items():
                self._table(name, columns)
            if version != FORMAT:
                self._begin_roll_ups()

    def _begin_roll_ups(self) -> None:
        """In a new file, or in one of before there were any: then no hour of it is rolled up."""
        run = self._connection.execute
        self._table("unrolled", {"hour": "BIGINT"})
        for kind in KINDS:
            run(f"INSERT INTO unrolled SELECT DISTINCT ts - ts % {HOUR_MS} FROM {kind}")  # noqa: S608 - our own names
        self._table("last_part", duckdb_last.COLUMNS)
        self._table("horizon", dict.fromkeys(Horizon._fields, "BIGINT"))
        run("INSERT INTO horizon VALUES (0, 0, 0)")
        self._table("format", {"version": "INTEGER"})
        run("DELETE FROM format")
        run("INSERT INTO format VALUES (?)", [FORMAT])

    def _table(self, name: str, columns: dict[str, str]) -> None:
        body = ", ".join(f'"{column}" {sql_type}' for column, sql_type in columns.items())
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({body})")
        for column, sql_type in columns.items():
            self._connection.execute(f'ALTER TABLE {name} ADD COLUMN IF NOT EXISTS "{column}" {sql_type}')

    def _query(self, sql: str, parameters: list[Any]) -> list[Any]:
        """A read on a cursor of its own, so that charts do not wait for writes."""
        with self._told(), self._connection.cursor() as cursor:
            return cursor.execute(sql, parameters).fetchall()


# --- writing ---------------------------------------------------------------------------------------------------------


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    connection.begin()
    try:
        yield connection
        connection.commit()
    except BaseException:
        with suppress(duckdb.Error):  # the first error is the one to tell
            connection.rollback()
        raise


def _snapshot(cursor: duckdb.DuckDBPyConnection) -> None:
    """From here on the cursor sees what is there now."""
    cursor.begin()
    cursor.execute("SELECT version FROM format").fetchall()  # a transaction begins with its first question


def _insert_readings(connection: duckdb.DuckDBPyConnection, kind: str, readings: Sequence[Reading]) -> None:
    known = all_fields(kind)
    used = {name for reading in readings for name in reading.fields}
    fields = [name for name in known if name in used]  # columns nobody sent are not worth a list
    columns: dict[str, list[Any]] = {
        "device_id": [one.device_id for one in readings],
        "part": [one.part for one in readings],
        "ts": [one.ts for one in readings],
        "rx": [one.rx for one in readings],
        "seq": [one.seq for one in readings],
        "clock_ok": [one.clock_ok for one in readings],
        "retained": [one.retained for one in readings],
    }
    if not used <= known.keys():
        columns["extra"] = [_extra(one.fields, known.keys()) for one in readings]
    for name in fields:
        columns[name] = [one.fields.get(name) for one in readings]
    types = _POINT_COLUMNS | {name: SQL_TYPES[known[name].type] for name in fields}
    _insert_columns(connection, kind, {name: types[name] for name in columns}, columns)


def _extra(fields: Mapping[str, Value], known: Collection[str]) -> str | None:
    extra = {name: value for name, value in fields.items() if name not in known}
    return json.dumps(extra, ensure_ascii=False) if extra else None


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, columns: dict[str, str], rows: Sequence[tuple[Any, ...]]
) -> None:
    if rows:
        _insert_columns(connection, table, columns, dict(zip(columns, zip(*rows, strict=True), strict=True)))


def _insert_columns(
    connection: duckdb.DuckDBPyConnection, table: str, types: dict[str, str], columns: Mapping[str, Sequence[Any]]
) -> None:
    """One statement for all rows, as one JSON text with a list per column: DuckDB reads that without holding us up."""
    names = ", ".join(f'unnest(sent."{name}")' for name in columns)
    connection.execute(
        f"INSERT INTO {table} ({_names(columns)}) SELECT {names} FROM (SELECT from_json_strict(?, ?) AS sent)",  # noqa: S608 - our own names
        [json.dumps(columns, ensure_ascii=False), json.dumps({name: [kind] for name, kind in types.items()})],
    )


# --- small things ----------------------------------------------------------------------------------------------------


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
