"""Last values in DuckDB: saved with every roll-up, so that opening reads them and the hours that are not rolled up.

Reading them from all raw data took 45 s for 20 million rows; and raw data is dropped, last values are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import duckdb

from core.kinds import KINDS, STATUS_FIELDS, all_fields
from core.reading import Reading
from storage.last_values import LastValues, Part
from storage.series import HOUR_MS

Parts = dict[tuple[str, str], Part]
"""By (device id, part)."""

COLUMNS: Final = {
    "device_id": "VARCHAR",
    "part": "VARCHAR",
    "kind": "VARCHAR",
    "ts": "BIGINT",
    "rx": "BIGINT",
    "fields": "VARCHAR",
}
"""`fields` is JSON: name -> [value, ts, receive time of a status]."""


def row(key: tuple[str, str], part: Part) -> tuple[Any, ...]:
    """One part as a row of the table."""
    fields = {name: [*held, part.status_rx.get(name)] for name, held in part.held().items()}
    return (*key, part.kind, part.ts, part.rx, json.dumps(fields))


def load(connection: duckdb.DuckDBPyConnection, unrolled: Sequence[int]) -> tuple[LastValues, Parts]:
    """What was saved, and what was written since: into hours that are not rolled up."""
    parts = dict(_saved(connection))
    spoke = "SELECT device_id, max(rx) FROM event WHERE NOT retained GROUP BY device_id"
    last = LastValues(parts, dict(connection.execute(spoke).fetchall()))
    for start, end in runs(unrolled):
        for kind in KINDS:
            _scan(connection, kind, start, end, last, parts)
    return last, parts


def runs(hours: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbouring hours as stretches of time (Unix ms, end exclusive)."""
    start = end = None
    for hour in hours:
        if hour != end:
            if start is not None and end is not None:
                yield start, end
            start = hour
        end = hour + HOUR_MS
    if start is not None and end is not None:
        yield start, end


def _saved(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[tuple[str, str], Part]]:
    columns = ", ".join(COLUMNS)
    for device_id, part, kind, ts, rx, fields in connection.execute(f"SELECT {columns} FROM last_part").fetchall():  # noqa: S608
        held = Part(kind, ts, rx)
        for name, (value, value_ts, status_rx) in json.loads(fields).items():
            if status_rx is None:
                held.put(name, value, value_ts)
            else:
                held.put_status(name, value, value_ts, status_rx)
        yield (device_id, part), held


def _scan(
    connection: duckdb.DuckDBPyConnection, kind: str, start: int, end: int, last: LastValues, parts: Parts
) -> None:
    """Takes in one stretch of raw data: only rows that hold the newest value of a field, in the order of writing."""
    fields = all_fields(kind)
    names = ", ".join(f'"{name}"' for name in fields)
    newest = ", ".join(
        f'max({"rx" if name in STATUS_FIELDS else "ts"}) FILTER ("{name}" IS NOT NULL)' for name in fields
    )
    found = connection.execute(
        f"""
        SELECT device_id, part, max(ts), max(rx) FILTER (NOT retained AND online IS DISTINCT FROM false), {newest}
        FROM {kind} WHERE ts >= ? AND ts < ? GROUP BY device_id, part
        """,  # noqa: S608 - names of the contract
        [start, end],
    ).fetchall()
    extras = connection.execute(
        f"""
        SELECT device_id, part, name, max(ts) FROM (
            SELECT device_id, part, ts, unnest(json_keys(extra)) AS name
            FROM {kind} WHERE extra IS NOT NULL AND ts >= ? AND ts < ?
        ) GROUP BY ALL
        """,  # noqa: S608 - names of the contract
        [start, end],
    ).fetchall()
    points = {(device_id, part, ts) for device_id, part, _, ts in extras}
    statuses: set[tuple[str, str, int]] = set()
    for device_id, part, ts, rx, *times in found:
        held = parts.setdefault((device_id, part), Part(kind))
        held.ts = max(held.ts, ts)
        held.rx = max((one for one in (held.rx, rx) if one is not None), default=None)
        for name, time in zip(fields, times, strict=True):
            if time is not None:
                (statuses if name in STATUS_FIELDS else points).add((device_id, part, time))
    rows = connection.execute(
        f"""
        SELECT device_id, part, ts, rx, retained, extra, {names} FROM {kind}
        WHERE ts >= ? AND ts < ? AND (
            (device_id, part, ts) IN (SELECT (unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::BIGINT[])))
            OR (device_id, part, rx) IN (SELECT (unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::BIGINT[])))
        ) ORDER BY rowid
        """,  # noqa: S608 - names of the contract
        [start, end, *_columns(points), *_columns(statuses)],
    ).fetchall()
    last.take(_reading(kind, list(fields), one) for one in rows)


def _columns(rows: Iterable[tuple[str, str, int]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[], [], []]


def _reading(kind: str, names: Sequence[str], row: tuple[Any, ...]) -> Reading:
    device_id, part, ts, rx, retained, extra, *values = row
    fields = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return Reading(
        device_id, kind, part, ts, rx, None, fields | (json.loads(extra) if extra else {}), retained=retained
    )
