"""Windows in DuckDB: what raw points, minute rows and hour rows say of a stretch of time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import duckdb

from core.kinds import all_fields
from storage.duckdb_rollup import JOINED, SUFFIX, is_number, joined
from storage.rollup import Partial, Resolution, Slice

Asked = tuple[str, str, str, str]
"""Kind, device id, part, field."""


def partials(cursor: duckdb.DuckDBPyConnection, asked: Asked, cut: Slice, start: int, step: int) -> Iterable[Partial]:
    """What one slice of a window says. `start`: of the window."""
    kind, *_, field = asked
    if cut.rows is not Resolution.RAW:
        return _rolled(cursor, asked, cut, start, step)
    if field in all_fields(kind):
        return _raw(cursor, asked, cut, step)
    return _raw_unknown(cursor, asked, cut, step)


def _raw(cursor: duckdb.DuckDBPyConnection, asked: Asked, cut: Slice, step: int) -> Iterator[Partial]:
    kind, device_id, part, field = asked
    numbers = "sum(v::DOUBLE), min(v), max(v)" if is_number(all_fields(kind)[field]) else "NULL, NULL, NULL"
    rows = cursor.execute(
        f"""
        WITH points AS (
            SELECT ts, arg_max("{field}", rowid) AS v FROM {kind}
            WHERE device_id = ? AND part = ? AND ts >= ? AND ts < ? AND "{field}" IS NOT NULL GROUP BY ts
        )
        SELECT ts - ts % ? AS start, count(*), arg_max(v, ts), {numbers}
        FROM points GROUP BY start ORDER BY start
        """,  # noqa: S608 - kind and field are names of the contract, never user text
        [device_id, part, cut.start, cut.end, step],
    ).fetchall()
    return (Partial(*row) for row in rows)


def _raw_unknown(cursor: duckdb.DuckDBPyConnection, asked: Asked, cut: Slice, step: int) -> Iterator[Partial]:
    """Fields outside the contract live in a JSON column; numbers and text may alternate."""
    kind, device_id, part, field = asked
    pointer = "/" + field.replace("~", "~0").replace("/", "~1")
    rows = cursor.execute(
        f"""
        SELECT ts, arg_max(json_extract(extra, ?), rowid) AS v FROM {kind}
        WHERE device_id = ? AND part = ? AND ts >= ? AND ts < ? AND json_extract(extra, ?) IS NOT NULL
        GROUP BY ts ORDER BY ts
        """,  # noqa: S608 - kind is a name of the contract
        [pointer, device_id, part, cut.start, cut.end, pointer],
    ).fetchall()
    for ts, raw in rows:
        value = json.loads(raw)
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        yield Partial(ts - ts % step, 1, value, number, number, number)


def _rolled(cursor: duckdb.DuckDBPyConnection, asked: Asked, cut: Slice, start: int, step: int) -> Iterator[Partial]:
    kind, device_id, part, field = asked
    spec = all_fields(kind).get(field)
    suffix = SUFFIX[cut.rows]
    parameters: list[Any] = [start, device_id, part, cut.start, cut.end]
    if spec is None:
        table, one, only = f"extra_{suffix}", "", "name = ? AND kind = ?"
        numbers = [f"if(count(total) = count(*), {how}({what}), NULL)" for how, what in JOINED]
        parameters += [field, kind]
    else:
        table, one, only = f"{kind}_{suffix}", f'"{field}".', f'"{field}" IS NOT NULL'
        numbers = [joined(how, what, field) if is_number(spec) else "NULL" for how, what in JOINED]
    rows = cursor.execute(
        f"""
        SELECT counted - counted % ? AS step, sum({one}points)::BIGINT, arg_max({one}"last", ts), {", ".join(numbers)}
        FROM (SELECT *, greatest(ts, ?) AS counted FROM {table}
              WHERE device_id = ? AND part = ? AND ts >= ? AND ts < ? AND {only})
        GROUP BY step ORDER BY step
        """,  # noqa: S608 - kind and field are names of the contract, never user text
        [step, *parameters],
    ).fetchall()
    for first, points, last, total, minimum, maximum in rows:
        yield Partial(first, points, json.loads(last) if spec is None else last, total, minimum, maximum)
