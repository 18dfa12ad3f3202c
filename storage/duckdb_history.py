"""Stored readings and events out of a DuckDB file: slices of time, each sorted and put together by the database.

Rows become readings by the set of columns that are filled: devices send the same few sets for ever, so which names go
with which values is worked out once for each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import duckdb

from core.errors import DataFolderError, StoreUnavailable
from core.kinds import KINDS, all_fields
from core.reading import Event, Reading
from storage.history import STATUS, Item, Spoken, columns, in_order, order
from storage.series import HOUR_MS

SLICE_ROWS: Final = 50_000
"""Rows that are read at once: about 40 MB while they are readings."""

ROWS_AT_ONCE: Final = 1_000
"""Rows as Python objects at once: few, so that the memory of the last ones is used again."""

SECOND_MS: Final = 1_000
_EVENT: Final = (
    *("device_id", "kind", "part", "ts", "rx", "seq", "id", "table_name", "code", "fault", "raised"),
    *("clock_ok", "retained"),
)
_MEMORY: Final = "256MB"
NEWLINE: Final = "\n"

Asked = tuple[Collection[str] | None, Collection[str] | None, Collection[str] | None]
"""Device ids, kinds and fields; None: all."""


class DuckDbHistory:
    """A file that is only read, so that several processes may do so at once. Keeps `storage.history.History`."""

    def __init__(self, path: Path, *, slice_rows: int = SLICE_ROWS) -> None:
        """Raises DataFolderError: no such file, or a running service holds it. `slice_rows` are read at once."""
        self._slice_rows = slice_rows
        if not path.exists():
            raise DataFolderError(f"no series are stored yet: {path} is not there")
        settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": 2,
            "memory_limit": _MEMORY,
            "autoinstall_known_extensions": False,
        }
        try:
            self._connection = duckdb.connect(str(path), read_only=True, config=settings)
        except duckdb.Error as error:
            reason = str(error).partition("\n")[0]
            raise DataFolderError(f"cannot read {path} (a running service holds it alone): {reason}") from error

    def history(
        self,
        start: int,
        end: int,
        *,
        device_ids: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        fields: Collection[str] | None = None,
    ) -> Iterator[Item]:
        """See `storage.history.History`."""
        return read(self._connection, start, end, (device_ids, kinds, fields), self._slice_rows)

    def spoken(self, start: int, end: int) -> list[Spoken]:
        """See `storage.history.History`."""
        return spoken(self._connection, start, end)

    def close(self) -> None:
        """Releases the file."""
        self._connection.close()


def read(
    connection: duckdb.DuckDBPyConnection, start: int, end: int, asked: Asked, slice_rows: int = SLICE_ROWS
) -> Iterator[Item]:
    """Readings and events in order, all as they were stored when the first was taken. Raises StoreUnavailable."""
    device_ids, kinds, fields = asked
    wanted = [kind for kind in KINDS if kinds is None or kind in kinds]
    try:
        with connection.cursor() as cursor:
            cursor.begin()
            known = set(_column_names(cursor))
            readers = [_Points(kind, fields, known) for kind in wanted]
            statuses = [] if fields is not None and not set(STATUS) & set(fields) else wanted
            for low, high in _slices(cursor, wanted, start, end, device_ids, slice_rows):
                samples = [reader.read(cursor, low, high, device_ids) for reader in readers]
                said = [one for kind in statuses for one in _statuses(cursor, kind, low, high, device_ids, fields)]
                said.sort(key=order)
                yield from in_order(samples, said, _events(cursor, low, high, device_ids, wanted))
    except duckdb.Error as error:
        raise StoreUnavailable(f"series store: {str(error).partition(NEWLINE)[0]}") from error


def spoken(connection: duckdb.DuckDBPyConnection, start: int, end: int) -> list[Spoken]:
    """Who said something, by device id. Raises StoreUnavailable."""
    every = [f"SELECT device_id, '{kind}' AS kind FROM {kind} WHERE ts >= $low AND ts < $high" for kind in KINDS]  # noqa: S608 - our own names
    every.append("SELECT device_id, kind FROM event WHERE ts >= $low AND ts < $high")
    told = f"SELECT device_id, min(kind), count(*) FROM ({' UNION ALL '.join(every)}) GROUP BY 1 ORDER BY 1"  # noqa: S608
    try:
        with connection.cursor() as cursor:
            return [Spoken(*row) for row in cursor.execute(told, {"low": start, "high": end}).fetchall()]
    except duckdb.Error as error:
        raise StoreUnavailable(f"series store: {str(error).partition(NEWLINE)[0]}") from error


# --- slices of time --------------------------------------------------------------------------------------------------


def _slices(
    cursor: duckdb.DuckDBPyConnection,
    kinds: Sequence[str],
    start: int,
    end: int,
    device_ids: Collection[str] | None,
    slice_rows: int,
) -> Iterator[tuple[int, int]]:
    """Stretches of time of about `slice_rows` rows: whole hours while they are small, else down to a second."""
    low, rows = start, 0
    for begin, step, count in _counted(cursor, kinds, start, end, device_ids, slice_rows):
        if rows and rows + count > slice_rows:
            yield low, max(begin, start)
            low, rows = max(begin, start), 0
        rows += count
        if rows > slice_rows:
            yield low, min(begin + step, end)
            low, rows = min(begin + step, end), 0
    if low < end:
        yield low, end


def _counted(
    cursor: duckdb.DuckDBPyConnection,
    kinds: Sequence[str],
    start: int,
    end: int,
    device_ids: Collection[str] | None,
    slice_rows: int,
) -> Iterator[tuple[int, int, int]]:
    """(start of a step, its length, rows in it), in order, of steps that have rows."""
    for hour, count in _count(cursor, kinds, HOUR_MS, start, end, device_ids):
        if count <= slice_rows:
            yield hour, HOUR_MS, count
        else:
            span = max(start, hour), min(end, hour + HOUR_MS)
            for second, some in _count(cursor, kinds, SECOND_MS, *span, device_ids):
                yield second, SECOND_MS, some


def _count(
    cursor: duckdb.DuckDBPyConnection,
    kinds: Sequence[str],
    step: int,
    start: int,
    end: int,
    device_ids: Collection[str] | None,
) -> list[tuple[int, int]]:
    where, values = _where(start, end, device_ids)
    every = " UNION ALL ".join(f"SELECT ts FROM {kind} WHERE {where}" for kind in kinds)  # noqa: S608 - our own names
    if not every:
        return []
    told = f"SELECT ts - ts % {step} AS begun, count(*) FROM ({every}) GROUP BY 1 ORDER BY 1"  # noqa: S608
    return cursor.execute(told, values).fetchall()


def _where(start: int, end: int, device_ids: Collection[str] | None, time: str = "ts") -> tuple[str, dict[str, Any]]:
    where, values = f"{time} >= $low AND {time} < $high", {"low": start, "high": end}
    if device_ids is None:
        return where, values
    return f"{where} AND device_id IN (SELECT unnest($ids::VARCHAR[]))", values | {"ids": list(device_ids)}


def _column_names(cursor: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """(table, column): a file of before a field was added lacks it, and is read as it is."""
    return cursor.execute("SELECT table_name, column_name FROM information_schema.columns").fetchall()


# --- rows to readings and events -------------------------------------------------------------------------------------

Facts = Callable[[Sequence[Any]], tuple[Any, ...]]

_HEAD: Final = 9
"""Columns before the fields: device, part, ts, rx, seq, clock_ok, retained, extra, mask."""


class _Points:
    """Reads the samples of one kind."""

    def __init__(self, kind: str, fields: Collection[str] | None, known: Collection[tuple[str, str]]) -> None:
        """`known`: (table, column) of all columns that the file has."""
        self._kind = kind
        self._names = names = [name for name in columns(kind, fields) if (kind, name) in known]
        self._wanted = fields
        self._shapes: dict[int, tuple[tuple[str, ...], Facts]] = {}
        """By mask (bit i: column i is filled): names, and what takes their values from a row."""
        others = [name for name in columns(kind, None) if (kind, name) in known]
        quoted = ", ".join(f'"{name}"' for name in names)
        filled = " | ".join(f'(("{name}" IS NOT NULL)::BIGINT << {bit})' for bit, name in enumerate(names))
        extra = "extra" if fields is None or not set(fields) <= all_fields(kind).keys() else "NULL"
        is_sample = f"{_joined(others, 'IS NOT NULL', ' OR ')} OR extra IS NOT NULL"
        is_status = _joined(STATUS, "IS NOT NULL", " OR ")
        self._select = (  # only names of the contract
            f"SELECT device_id, part, ts, rx, seq, clock_ok, retained, {extra}, {filled or '0'}"  # noqa: S608
            f"{', ' if quoted else ''}{quoted} FROM {kind} WHERE (NOT ({is_status}) OR {is_sample}) AND "
        )

    def read(
        self, cursor: duckdb.DuckDBPyConnection, low: int, high: int, device_ids: Collection[str] | None
    ) -> list[Item]:
        where, values = _where(low, high, device_ids)
        cursor.execute(f"{self._select}{where} ORDER BY ts, device_id, part, rowid", values)
        kind, shapes, new = self._kind, self._shapes, tuple.__new__
        ids: dict[str, str] = {}
        found: list[Item] = []
        last_ts, last_id, last_part = -1, "", ""
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            for row in rows:
                device_id, part, ts, rx, seq, clock_ok, retained, extra, mask = row[:_HEAD]
                shape = shapes.get(mask)
                if shape is None:
                    shape = shapes[mask] = self._shape(mask)
                fields = dict(zip(shape[0], shape[1](row)))  # noqa: B905 - as long as each other by construction
                if extra is not None:
                    self._add_extra(fields, extra)
                device_id = ids.setdefault(device_id, device_id)  # one text for a device, not one for each row
                one = new(Reading, (device_id, kind, part, ts, rx, seq, fields, clock_ok, retained))
                if ts == last_ts and device_id == last_id and part == last_part:
                    found[-1] = _folded(found[-1], one)
                else:
                    found.append(one)
                    last_ts, last_id, last_part = ts, device_id, part
        return found

    def _shape(self, mask: int) -> tuple[tuple[str, ...], Facts]:
        filled = [bit for bit in range(len(self._names)) if mask >> bit & 1]
        return tuple(self._names[bit] for bit in filled), _taker([_HEAD + bit for bit in filled])

    def _add_extra(self, fields: dict[str, Any], extra: str) -> None:
        found = json.loads(extra)
        wanted = self._wanted
        fields |= found if wanted is None else {name: value for name, value in found.items() if name in wanted}


def _taker(places: Sequence[int]) -> Facts:
    if not places:
        return lambda _: ()
    if len(places) == 1:
        return lambda row: (row[places[0]],)
    return itemgetter(*places)


def _folded(before: Any, after: Reading) -> Reading:
    """Two pieces of one point, the later one on top."""
    lively = after if after.sign_of_life or not before.sign_of_life else before
    return after._replace(
        fields={**before.fields, **after.fields},
        rx=lively.rx,
        retained=lively.retained,
        seq=before.seq if after.seq is None else after.seq,
        clock_ok=before.clock_ok and after.clock_ok,
    )


def _statuses(
    cursor: duckdb.DuckDBPyConnection,
    kind: str,
    low: int,
    high: int,
    device_ids: Collection[str] | None,
    fields: Collection[str] | None,
) -> list[Item]:
    """By receive time; the same one delivered twice in one millisecond is one."""
    where, values = _where(low, high, device_ids, "rx")
    names = [name for name in STATUS if fields is None or name in fields]
    rows = cursor.execute(
        f"""
        SELECT device_id, part, ts, rx, seq, clock_ok, retained, {", ".join(names)} FROM {kind}
        WHERE ({_joined(names, "IS NOT NULL", " OR ")}) AND {where} ORDER BY rx, device_id, part, rowid
        """,  # noqa: S608 - names of the contract
        values,
    ).fetchall()
    found: list[Item] = []
    for device_id, part, ts, rx, seq, clock_ok, retained, *told in rows:
        said = {name: value for name, value in zip(names, told, strict=True) if value is not None}
        one = Reading(device_id, kind, part, ts, rx, seq, said, clock_ok, retained)
        last = found[-1] if found else None
        if last is not None and (last.device_id, last.part, last.rx) == (device_id, part, rx):
            found[-1] = _folded(last, one)
        else:
            found.append(one)
    return found


def _events(
    cursor: duckdb.DuckDBPyConnection, low: int, high: int, device_ids: Collection[str] | None, kinds: Sequence[str]
) -> list[Item]:
    """Each once, as it was told first."""
    where, values = _where(low, high, device_ids)
    rows = cursor.execute(
        f"""
        SELECT {", ".join(_EVENT)} FROM event WHERE {where} AND kind IN (SELECT unnest($kinds::VARCHAR[]))
        QUALIFY row_number() OVER (PARTITION BY device_id, part, id, ts, raised ORDER BY rowid) = 1
        ORDER BY ts, device_id, part, rowid
        """,  # noqa: S608 - our own names
        values | {"kinds": list(kinds)},
    ).fetchall()
    return [Event(*row) for row in rows]


def _joined(names: Sequence[str], test: str, word: str) -> str:
    return word.join(f'"{name}" {test}' for name in names)
