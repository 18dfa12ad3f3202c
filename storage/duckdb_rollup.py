"""Minute and hour rows in DuckDB: their tables, and how they are made from raw points.

One wide table per kind and resolution, a struct per field; fields outside the contract stand in long tables. The same
five facts everywhere; text and bools have two of them. See docs/decisions/0007-roll-ups.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import duckdb

from core.fields import FieldSpec
from core.kinds import KINDS, all_fields
from storage.rollup import Resolution
from storage.series import HOUR_MS, MINUTE_MS, Horizon

SQL_TYPES: Final = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}
CHUNK_ROWS: Final = 100_000
"""Raw rows that are rolled up at once: memory stays small, and so does the wait of whoever comes between."""

SUFFIX: Final = {Resolution.MINUTE: "1m", Resolution.HOUR: "1h"}
_KEY_COLUMNS: Final = {"ts": "BIGINT", "device_id": "VARCHAR", "part": "VARCHAR"}
_EXTRA_COLUMNS: Final = {
    "kind": "VARCHAR",
    **_KEY_COLUMNS,
    "name": "VARCHAR",
    "points": "INTEGER",
    "total": "DOUBLE",
    "minimum": "DOUBLE",
    "maximum": "DOUBLE",
    "last": "VARCHAR",
}
"""`last` is JSON. The numbers are NULL unless every value is a number."""

JOINED: Final = (("sum", "total"), ("min", "minimum"), ("max", "maximum"))
"""How the numbers of several rows become those of one."""


def tables() -> dict[str, dict[str, str]]:
    """Names and columns of all tables of rolled data."""
    rolled = {f"extra_{suffix}": _EXTRA_COLUMNS for suffix in SUFFIX.values()}
    for kind in KINDS:
        columns = {name: _struct(spec) for name, spec in all_fields(kind).items()}
        rolled |= {f"{kind}_{suffix}": _KEY_COLUMNS | columns for suffix in SUFFIX.values()}
    return rolled


# --- rolling up ------------------------------------------------------------------------------------------------------


def chunks(
    cursor: duckdb.DuckDBPyConnection, kind: str, hour: int, devices: Iterable[str] | None, rows: int
) -> Iterator[list[str]]:
    """The devices of an hour (of `devices`, or all), so many at a time that they have about `rows` points."""
    only = "" if devices is None else "AND device_id IN (SELECT unnest(?::VARCHAR[]))"
    counted = cursor.execute(
        f"SELECT device_id, count(*) FROM {kind} WHERE ts >= ? AND ts < ? {only} GROUP BY 1 ORDER BY 1",  # noqa: S608
        [hour, hour + HOUR_MS, *([] if devices is None else [list(devices)])],
    ).fetchall()
    chunk: list[str] = []
    size = 0
    for device_id, points in counted:
        if chunk and size + points > rows:
            yield chunk
            chunk, size = [], 0
        chunk.append(device_id)
        size += points
    if chunk:
        yield chunk


def parts_of(cursor: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """The parts in the chunk at hand."""
    return cursor.execute("SELECT DISTINCT device_id, part FROM points").fetchall()


def prepare_chunk(
    cursor: duckdb.DuckDBPyConnection, kind: str, hour: int, devices: Sequence[str], horizon: Horizon
) -> None:
    """Makes the new rows of some devices in temporary tables. Nothing is changed yet."""
    fields = all_fields(kind)
    cursor.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE points AS
        SELECT rowid AS came, device_id, part, ts, extra, {_names(fields)} FROM {kind}
        WHERE ts >= ? AND ts < ? AND device_id IN (SELECT unnest(?::VARCHAR[]))
        """,  # noqa: S608 - names of the contract
        [hour, hour + HOUR_MS, list(devices)],
    )
    _roll_fields(cursor, fields, hour)
    _roll_extras(cursor, kind, hour)
    if hour < horizon.raw:
        _keep_the_fuller(cursor, kind, hour, devices)


def replace_chunk(
    cursor: duckdb.DuckDBPyConnection, kind: str, hour: int, devices: Sequence[str], horizon: Horizon
) -> None:
    """Puts the new rows in place of the old ones, inside the caller's transaction."""
    for rows, kept_from in ((Resolution.MINUTE, horizon.minute), (Resolution.HOUR, horizon.hour)):
        if hour < kept_from:
            continue
        suffix = SUFFIX[rows]
        span = [hour, hour + HOUR_MS, list(devices)]
        where = "ts >= ? AND ts < ? AND device_id IN (SELECT unnest(?::VARCHAR[]))"
        cursor.execute(f"DELETE FROM {kind}_{suffix} WHERE {where}", span)  # noqa: S608 - names of the contract
        cursor.execute(f"INSERT INTO {kind}_{suffix} BY NAME SELECT * FROM new_{suffix} ORDER BY device_id, part, ts")  # noqa: S608
        cursor.execute(
            f"""
            DELETE FROM extra_{suffix} WHERE {where} AND kind = ?
            AND (device_id, part, name) IN (SELECT (device_id, part, name) FROM new_extra_1h)
            """,  # noqa: S608 - our own names
            [*span, kind],
        )
        cursor.execute(f"INSERT INTO extra_{suffix} BY NAME SELECT * FROM new_extra_{suffix}")  # noqa: S608


def drop(cursor: duckdb.DuckDBPyConnection, horizon: Horizon, waiting: Sequence[int]) -> None:
    """Deletes what is before the horizons, but raw data of the hours that are `waiting` to be rolled up."""
    for kind in KINDS:
        cursor.execute(
            f"""
            DELETE FROM {kind}
            WHERE ts < ? AND ts - ts % {HOUR_MS} NOT IN (SELECT unnest(?::BIGINT[]))
            """,  # noqa: S608 - names of the contract
            [horizon.raw, list(waiting)],
        )
    for rows, before in ((Resolution.MINUTE, horizon.minute), (Resolution.HOUR, horizon.hour)):
        for name in (*KINDS, "extra"):
            cursor.execute(f"DELETE FROM {name}_{SUFFIX[rows]} WHERE ts < ?", [before])  # noqa: S608 - our own names
    cursor.execute("DELETE FROM event WHERE ts < ?", [horizon.hour])


def _roll_fields(cursor: duckdb.DuckDBPyConnection, fields: dict[str, FieldSpec], hour: int) -> None:
    """`points` -> `new_1m` -> `new_1h`."""
    (rows, once), *_ = cursor.execute("SELECT count(*), count(DISTINCT (device_id, part, ts)) FROM points").fetchall()
    folded = "points"
    if rows != once:  # points that came again, or in pieces
        columns = ", ".join(f'arg_max("{name}", came) AS "{name}"' for name in fields)
        folded = f"(SELECT device_id, part, ts, {columns} FROM points GROUP BY device_id, part, ts)"  # noqa: S608
    columns = ", ".join(f'{_rolled(name, spec)} AS "{name}"' for name, spec in fields.items())
    cursor.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE new_1m AS
        SELECT points.ts - points.ts % {MINUTE_MS} AS ts, device_id, part, {columns}
        FROM {folded} AS points GROUP BY ALL
        """  # noqa: S608 - names of the contract
    )
    columns = ", ".join(f'{_rolled_again(name, spec)} AS "{name}"' for name, spec in fields.items())
    cursor.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE new_1h AS
        SELECT {hour}::BIGINT AS ts, device_id, part, {columns} FROM new_1m AS rows GROUP BY device_id, part
        """  # noqa: S608 - names of the contract
    )


def _roll_extras(cursor: duckdb.DuckDBPyConnection, kind: str, hour: int) -> None:
    """Fields outside the contract: `points` -> `new_extra_1m` -> `new_extra_1h`."""
    cursor.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE new_extra_1m AS
        WITH named AS (
            SELECT *, unnest(json_keys(extra)) AS name FROM points WHERE extra IS NOT NULL
        ), folded AS (
            SELECT device_id, part, name, ts,
                   arg_max(json_extract(extra, '/' || replace(replace(name, '~', '~0'), '/', '~1')), came) AS value
            FROM named GROUP BY ALL
        ), judged AS (
            SELECT *, if(json_type(value) IN ('VARCHAR', 'BOOLEAN'), NULL, value::DOUBLE) AS number FROM folded
        )
        SELECT '{kind}' AS kind, judged.ts - judged.ts % {MINUTE_MS} AS ts, device_id, part, name,
               count(*)::INTEGER AS points,
               {", ".join(f"if(count(number) = count(*), {how}(number), NULL) AS {what}" for how, what in JOINED)},
               arg_max(value::VARCHAR, judged.ts) AS last
        FROM judged GROUP BY ALL
        """  # noqa: S608 - our own names
    )
    cursor.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE new_extra_1h AS
        SELECT kind, {hour}::BIGINT AS ts, device_id, part, name, sum(points)::INTEGER AS points,
               {", ".join(f"if(count(total) = count(*), {how}({what}), NULL) AS {what}" for how, what in JOINED)},
               arg_max("last", rows.ts) AS last
        FROM new_extra_1m AS rows GROUP BY kind, device_id, part, name
        """  # noqa: S608 - our own names
    )


def _keep_the_fuller(cursor: duckdb.DuckDBPyConnection, kind: str, hour: int, devices: Sequence[str]) -> None:
    """The points of this hour were dropped, all but what came late: a field keeps the rows made of more points."""
    span = [hour, hour + HOUR_MS, list(devices)]
    where = "ts >= ? AND ts < ? AND device_id IN (SELECT unnest(?::VARCHAR[]))"
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE old_1h AS SELECT * FROM {kind}_1h WHERE {where}", span)  # noqa: S608
    for new in ("1h", "extra_1h"):
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE late_{new} AS SELECT * FROM new_{new}")  # noqa: S608
    chosen = ", ".join(
        f'CASE WHEN late."{name}".points >= coalesce(old."{name}".points, 0) THEN new."{name}" ELSE held."{name}" END'
        f' AS "{name}"'
        for name in all_fields(kind)
    )
    for suffix in SUFFIX.values():
        cursor.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE new_{suffix} AS
            SELECT ts, device_id, part, {chosen}
            FROM (SELECT * FROM {kind}_{suffix} WHERE {where}) AS held
            FULL JOIN new_{suffix} AS new USING (ts, device_id, part)
            LEFT JOIN (SELECT * EXCLUDE ts FROM late_1h) AS late USING (device_id, part)
            LEFT JOIN (SELECT * EXCLUDE ts FROM old_1h) AS old USING (device_id, part)
            """,  # noqa: S608 - names of the contract
            span,
        )
        cursor.execute(
            f"""
            DELETE FROM new_extra_{suffix} AS new WHERE EXISTS (
                FROM extra_1h AS old JOIN late_extra_1h AS late USING (kind, ts, device_id, part, name)
                WHERE old.kind = '{kind}' AND old.ts = {hour} AND old.points > late.points
                AND (new.device_id, new.part, new.name) = (old.device_id, old.part, old.name)
            )
            """  # noqa: S608 - our own names
        )


# --- columns ---------------------------------------------------------------------------------------------------------


def joined(how: str, what: str, field: str) -> str:
    """A number of several rows. A row of one point has only its last value: four times the same would fill the disk."""
    return f'{how}(coalesce("{field}".{what}, "{field}"."last"))'


def is_number(spec: FieldSpec) -> bool:
    """Whether a field has a mean."""
    return spec.type in (int, float)


def _struct(spec: FieldSpec) -> str:
    value = SQL_TYPES[spec.type]
    numbers = f"total DOUBLE, minimum {value}, maximum {value}, " if is_number(spec) else ""
    return f'STRUCT(points INTEGER, {numbers}"last" {value})'


def _rolled(name: str, spec: FieldSpec) -> str:
    """Points of one field -> the struct of a row; NULL where there is none."""
    several = f'CASE WHEN count("{name}") > 1 THEN {{0}} END'
    wanted = {"total": f'sum("{name}"::DOUBLE)', "minimum": f'min("{name}")', "maximum": f'max("{name}")'}
    numbers = "".join(f"{what} := {several.format(value)}, " for what, value in wanted.items())
    return (
        f'CASE WHEN count("{name}") > 0 THEN struct_pack(points := count("{name}")::INTEGER, '
        f'{numbers if is_number(spec) else ""}"last" := arg_max("{name}", points.ts)) END'
    )


def _rolled_again(name: str, spec: FieldSpec) -> str:
    """Rows of minutes -> the struct of an hour."""
    numbers = "".join(f"{what} := {joined(how, what, name)}, " for how, what in JOINED)
    return (
        f'CASE WHEN count("{name}") > 0 THEN struct_pack(points := sum("{name}".points)::INTEGER, '
        f'{numbers if is_number(spec) else ""}"last" := arg_max("{name}"."last", rows.ts)) END'
    )


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)
