"""The embedded series store: one DuckDB file, one wide table per device kind and one for events.

Tables are append-only; a point that was written again is folded together when it is read (last write wins, field by
field), which is what InfluxDB does too. Only one process can hold the file, so the last values of every part are kept
in memory and rebuilt on opening.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import duckdb

from core.errors import DataFolderError, StoreUnavailable
from core.kinds import KINDS, STATUS_FIELDS, all_fields
from core.reading import Batch, Event, Reading, Value
from storage.last_values import LastValues, Part
from storage.series import Bucket, Horizon, LastValue, PartValues, Refused

FORMAT: Final = 1
"""Raised when the tables change in a way that new columns alone do not cover."""

_SQL_TYPES: Final = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}
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

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._closed = False
        try:
            self._connection = self._connect()
        except duckdb.Error as error:
            raise DataFolderError(f"cannot open {path}: {_first_line(error)}") from error
        try:
            self._prepare()
            self._last = _last_values(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def write(self, batch: Batch) -> list[Refused]:
        readings = batch.readings
        with self._lock:
            try:
                self._connection.begin()
                try:
                    for kind in {reading.kind for reading in readings}:
                        self._insert_readings(kind, [one for one in readings if one.kind == kind])
                    self._insert("event", _EVENT_COLUMNS, [tuple(event) for event in batch.events])
                    self._connection.commit()
                except BaseException:
                    with suppress(duckdb.Error):  # the first error is the one to tell
                        self._connection.rollback()
                    raise
            except (duckdb.DataError, duckdb.ProgrammingError):
                raise  # the values are at fault, and no retry will make them fit
            except duckdb.Error as error:
                self._mend()
                raise StoreUnavailable(f"series store {self._path.name}: {_first_line(error)}") from error
            self._last.take(readings)
            self._last.take_events(batch.events)
        return []

    def heard(self, batch: Batch) -> None:
        with self._lock:
            self._last.take(batch.readings)
            self._last.take_events(batch.events)

    def window(
        self, kind: str, device_id: str, part: str, field: str, *, start: int, end: int, step: int
    ) -> list[Bucket]:
        spec = all_fields(kind).get(field)
        if spec is None:
            return self._unknown_field_window(kind, device_id, part, field, start, end, step)
        statistics = "avg(v), min(v), max(v)" if spec.type in (int, float) else "NULL, NULL, NULL"
        rows = self._query(
            f"""
            WITH points AS (
                SELECT ts, arg_max("{field}", rowid) AS v FROM {kind}
                WHERE device_id = ? AND part = ? AND ts >= ? AND ts < ? AND "{field}" IS NOT NULL GROUP BY ts
            )
            SELECT ts - ts % ? AS start, count(*), arg_max(v, ts), {statistics}
            FROM points GROUP BY start ORDER BY start
            """,  # noqa: S608 - kind and field are names of the contract, never user text
            [device_id, part, start, end, step],
        )
        return [Bucket(*row) for row in rows]

    def last_values(self, device_ids: Sequence[str] | None = None) -> dict[tuple[str, str], PartValues]:
        with self._lock:
            return self._last.of(device_ids)

    def last_seen(self) -> dict[str, int]:
        with self._lock:
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

    def newest_events(self) -> list[Event]:
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
        return [Event(*row) for row in rows]

    def unrolled(self) -> list[int]:
        return []

    def roll_up(self, hour: int) -> None:
        raise NotImplementedError

    def expire(self, before: Horizon) -> None:
        raise NotImplementedError

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._connection.close()

    def _unknown_field_window(
        self, kind: str, device_id: str, part: str, field: str, start: int, end: int, step: int
    ) -> list[Bucket]:
        """Fields outside the contract live in a JSON column; numbers and text may alternate."""
        pointer = "/" + field.replace("~", "~0").replace("/", "~1")
        rows = self._query(
            f"""
            SELECT ts, arg_max(json_extract(extra, ?), rowid) AS v FROM {kind}
            WHERE device_id = ? AND part = ? AND ts >= ? AND ts < ? AND json_extract(extra, ?) IS NOT NULL
            GROUP BY ts ORDER BY ts
            """,  # noqa: S608 - kind is a name of the contract
            [pointer, device_id, part, start, end, pointer],
        )
        steps: dict[int, list[Value]] = {}
        for ts, raw in rows:
            steps.setdefault(ts - ts % step, []).append(json.loads(raw))
        return [_bucket(start_ms, values) for start_ms, values in steps.items()]

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
        run("CREATE TABLE IF NOT EXISTS format (version INTEGER)")
        row = run("SELECT max(version) FROM format").fetchone()
        version = row[0] if row else None
        if version is None:
            run("INSERT INTO format VALUES (?)", [FORMAT])
        elif version != FORMAT:
            age = "an older" if version < FORMAT else "a newer"
            raise DataFolderError(f"{self._path} was written by {age} version (format {version}, here {FORMAT})")
        self._table("event", _EVENT_COLUMNS)
        for kind in KINDS:
            columns = {name: _SQL_TYPES[spec.type] for name, spec in all_fields(kind).items()}
            self._table(kind, _POINT_COLUMNS | columns)

    def _table(self, name: str, columns: dict[str, str]) -> None:
        body = ", ".join(f'"{column}" {sql_type}' for column, sql_type in columns.items())
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({body})")
        for column, sql_type in columns.items():
            self._connection.execute(f'ALTER TABLE {name} ADD COLUMN IF NOT EXISTS "{column}" {sql_type}')

    def _insert_readings(self, kind: str, readings: Sequence[Reading]) -> None:
        known = all_fields(kind)
        used = {name for reading in readings for name in reading.fields if name in known}
        fields = [name for name in known if name in used]  # columns nobody sent are not worth a parameter
        columns = _POINT_COLUMNS | {name: _SQL_TYPES[known[name].type] for name in fields}
        self._insert(kind, columns, [_row(reading, fields, known.keys()) for reading in readings])

    def _insert(self, table: str, columns: dict[str, str], rows: Sequence[tuple[Any, ...]]) -> None:
        """One statement for all rows: a list per column, 40 times faster than a statement per row."""
        if not rows:
            return
        values = ", ".join(f"unnest(?::{sql_type}[])" for sql_type in columns.values())
        self._connection.execute(
            f"INSERT INTO {table} ({_names(columns)}) SELECT {values}",
            [list(column) for column in zip(*rows, strict=True)],
        )

    def _query(self, sql: str, parameters: list[Any]) -> list[Any]:
        """A read on a cursor of its own, so that charts do not wait for writes."""
        try:
            with self._connection.cursor() as cursor:
                return cursor.execute(sql, parameters).fetchall()
        except duckdb.Error as error:
            raise StoreUnavailable(f"series store {self._path.name}: {_first_line(error)}") from error


def _last_values(connection: duckdb.DuckDBPyConnection) -> LastValues:
    spoke = "SELECT device_id, max(rx) FROM event WHERE NOT retained GROUP BY device_id"
    parts: dict[tuple[str, str], Part] = {}
    for kind in KINDS:
        parts |= _load(connection, kind)
    return LastValues(parts, dict(connection.execute(spoke).fetchall()))


def _load(connection: duckdb.DuckDBPyConnection, kind: str) -> dict[tuple[str, str], Part]:
    """One pass over the kind's table, and one over the rows that have fields outside the contract."""
    parts = {}
    fields = list(all_fields(kind))
    newest = ", ".join(
        f'max_by(struct_pack(v := "{name}", ts := ts, rx := rx), {order}) FILTER ("{name}" IS NOT NULL)'
        for name in fields
        for order in ("(rx, rowid)" if name in STATUS_FIELDS else "(ts, rowid)",)
    )
    rows = connection.execute(
        f"""
        SELECT device_id, part, max(ts), max(rx) FILTER (NOT retained AND online IS DISTINCT FROM false), {newest}
        FROM {kind} GROUP BY device_id, part
        """  # noqa: S608 - names of the contract
    ).fetchall()
    for device_id, part, ts, rx, *newest_of in rows:
        held = Part(kind, ts, rx)
        for name, found in zip(fields, newest_of, strict=True):
            if found is not None:
                held.values[name] = LastValue(found["v"], found["ts"])
                if name in STATUS_FIELDS:
                    held.status_rx[name] = found["rx"]
        parts[device_id, part] = held
    extras = connection.execute(
        f"""
        SELECT device_id, part, name, arg_max(json_extract(extra, pointer), (ts, rowid)), max(ts) FROM (
            SELECT *, '/' || replace(replace(name, '~', '~0'), '/', '~1') AS pointer
            FROM (SELECT device_id, part, ts, rowid, extra, unnest(json_keys(extra)) AS name
                  FROM {kind} WHERE extra IS NOT NULL)
        ) GROUP BY device_id, part, name
        """  # noqa: S608 - names of the contract
    ).fetchall()
    for device_id, part, name, raw, ts in extras:
        parts[device_id, part].values[name] = LastValue(json.loads(raw), ts)
    return parts


def _row(reading: Reading, fields: Sequence[str], known: Iterable[str]) -> tuple[Any, ...]:
    extra = {name: value for name, value in reading.fields.items() if name not in known}
    return (
        reading.device_id,
        reading.part,
        reading.ts,
        reading.rx,
        reading.seq,
        reading.clock_ok,
        reading.retained,
        json.dumps(extra, ensure_ascii=False) if extra else None,
        *(reading.fields.get(name) for name in fields),
    )


def _bucket(start: int, values: Sequence[Value]) -> Bucket:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) != len(values):
        return Bucket(start, len(values), values[-1], None, None, None)
    return Bucket(start, len(values), values[-1], sum(numbers) / len(numbers), min(numbers), max(numbers))


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
