"""Stored readings and events out of InfluxDB: pages of each measurement by time, put together as they come.

A page is asked for by its first instant and its number of rows, so an answer is never large. Where a page ends inside
an instant, that instant is asked for again with the next one.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from core.kinds import KINDS, all_fields
from core.reading import Event, Reading, Value
from storage import influx_lines as lines
from storage.history import STATUS, Item, Spoken, columns, order
from storage.influx_last import Query
from storage.series import Horizon

PAGE_ROWS: Final = 10_000
NAMED: Final = 20
"""Up to so many devices are named in the question; of more, all is read and the others are left out here."""

Asked = tuple[Collection[str] | None, Collection[str] | None, Collection[str] | None]
"""Device ids, kinds and fields; None: all."""

Row = Mapping[str, Any]


def read(
    query: Query,
    raw: str,
    hours: str,
    start: int,
    end: int,
    asked: Asked,
    horizon: Horizon,
    page_rows: int = PAGE_ROWS,
) -> Iterator[Item]:
    """Readings and events in order. `raw` and `hours` are databases. Raises StoreUnavailable."""
    device_ids, kinds, fields = asked
    wanted = [kind for kind in KINDS if kinds is None or kind in kinds]
    young = max(start, horizon.raw)
    runs: list[Iterator[Item]] = []
    for kind in wanted:
        rows = _pages(query, raw, kind, _wanted_columns(kind, fields), young, end, device_ids, page_rows)
        runs.append(_in_order(_samples(kind, rows, fields)))
    if fields is None or set(STATUS) & set(fields):
        runs.append(_in_order(_statuses(query, raw, wanted, young, end, asked, page_rows)))
    rows = _pages(query, hours, "event", "*", max(start, horizon.hour), end, device_ids, page_rows)
    runs.append(_in_order(_events(rows, wanted)))
    return heapq.merge(*runs, key=order)


def spoken(query: Query, raw: str, hours: str, start: int, end: int) -> list[Spoken]:
    """Who said something, by device id. Raises StoreUnavailable."""
    found: dict[str, Spoken] = {}
    span = lines.span(start, end)
    for kind in KINDS:
        for column in ("rx", "rx_quiet"):
            (told,) = query(raw, f'SELECT count("{column}") FROM "{kind}" WHERE {span} GROUP BY device, part, site')  # noqa: S608 - our own names
            for one in told:
                _add(found, lines.device_of(one.tags)[0], kind, int(one.rows[0][1]))
    (told,) = query(hours, f'SELECT count("kind"), last("kind") FROM "event" WHERE {span} GROUP BY device, site')  # noqa: S608
    for one in told:
        device_id = f"{lines.unsafe(one.tags['site'])}.{lines.unsafe(one.tags['device'])}"
        _add(found, device_id, str(one.rows[0][2]), int(one.rows[0][1]))
    return [found[device_id] for device_id in sorted(found)]


def _add(found: dict[str, Spoken], device_id: str, kind: str, items: int) -> None:
    known = found.get(device_id)
    found[device_id] = Spoken(device_id, kind, items) if known is None else known._replace(items=known.items + items)


def _wanted_columns(kind: str, fields: Collection[str] | None) -> str:
    """What is selected. One column more than tags, so that a point without any of the fields is there too."""
    if fields is None:
        return "*"
    names = columns(kind, fields)
    names += [
        f"{prefix}{lines.safe(name)}"
        for name in fields
        if name not in all_fields(kind)
        for prefix in (lines.NUMBER, lines.OTHER)
    ]
    return ", ".join(
        f'"{name}"' for name in (*names, *STATUS, "rx", "rx_quiet", "seq", "clock_ok", "device", "part", "site")
    )


def _pages(
    query: Query,
    database: str,
    measurement: str,
    wanted: str,
    start: int,
    end: int,
    device_ids: Collection[str] | None,
    page_rows: int,
) -> Iterator[Row]:
    """Rows by time."""
    of = ""
    if device_ids is not None and len(device_ids) <= NAMED:
        of = " AND (" + " OR ".join(f"({lines.where(one)})" for one in device_ids) + ")"
        if not device_ids:
            return
    named = None if device_ids is None else frozenset(device_ids)
    rows_asked = page_rows
    while start < end:
        here = f'FROM "{measurement}" WHERE {lines.span(start, end)}{of} ORDER BY time LIMIT {rows_asked}'
        (found,) = query(database, f"SELECT {wanted} {here}")
        rows = [row for one in found for row in one.dicts()]
        full = len(rows) >= rows_asked
        last = rows[-1]["time"] if full else end
        if full and last == rows[0]["time"]:
            rows_asked *= 2  # more in one instant than fit a page
            continue
        for row in rows:
            if row["time"] < last and (named is None or lines.device_of(row)[0] in named):
                yield row
        start, rows_asked = last, page_rows


def _in_order(items: Iterable[Item]) -> Iterator[Item]:
    """Items that come by time, put in order within each instant."""
    together: list[Item] = []
    at = 0
    for item in items:
        key = order(item)[0]
        if key != at and together:
            yield from sorted(together, key=order)
            together = []
        at = key
        together.append(item)
    yield from sorted(together, key=order)


def _samples(kind: str, rows: Iterable[Row], fields: Collection[str] | None) -> Iterator[Item]:
    """Points without their statuses, which stand in a measurement of their own by receive time."""
    known = columns(kind, fields)
    for row in rows:
        said: dict[str, Value] = {name: row[name] for name in known if row.get(name) is not None}
        said |= _others(row, fields)
        alive = row.get("rx") is not None
        if not said and any(row.get(name) is not None for name in STATUS):
            continue  # a status and nothing else
        device_id, part = lines.device_of(row)
        rx = row["rx"] if alive else row["rx_quiet"]
        clock_ok = row.get("clock_ok") is not False
        yield Reading(device_id, kind, part, row["time"], rx, row.get("seq"), _typed(kind, said), clock_ok, not alive)


def _others(row: Row, fields: Collection[str] | None) -> dict[str, Value]:
    """Fields outside the contract."""
    found: dict[str, Value] = {}
    for column, raw in row.items():
        prefix = next((one for one in (lines.OTHER, lines.NUMBER) if column.startswith(one)), None)
        if prefix is None or raw is None:
            continue
        name = lines.unsafe(column.removeprefix(prefix))
        if fields is not None and name not in fields:
            continue
        value = lines.outside_value(raw, None) if prefix == lines.NUMBER else lines.outside_value(None, raw)
        if value is not None and (prefix == lines.OTHER or name not in found):
            found[name] = value
    return found


def _typed(kind: str, said: dict[str, Value]) -> dict[str, Value]:
    """JSON tells 20.0 as 20: floats of the contract become floats again."""
    specs = all_fields(kind)
    for name, value in said.items():
        if (name not in specs or specs[name].type is float) and isinstance(value, int) and not isinstance(value, bool):
            said[name] = float(value)
    return said


def _statuses(
    query: Query, raw: str, kinds: Collection[str], start: int, end: int, asked: Asked, page_rows: int
) -> Iterator[Item]:
    """By receive time. The measurement does not name the kind: what speaks of a device does."""
    device_ids, _, fields = asked
    names = [name for name in STATUS if fields is None or name in fields]
    kind_of = _kinds(query, raw)
    for row in _pages(query, raw, "status", "*", start, end, device_ids, page_rows):
        device_id, part = lines.device_of(row)
        said: dict[str, Value] = {name: row[name] for name in names if row.get(name) is not None}
        kind = kind_of.get(device_id)
        if said and kind in kinds:
            ts = max(row[f"{name}_ts"] for name in said)
            yield Reading(device_id, str(kind), part, ts, row["time"], None, said, True, True)


def _kinds(query: Query, raw: str) -> dict[str, str]:
    """Kind by device id, of all devices that ever said something."""
    found: dict[str, str] = {}
    for kind in KINDS:
        (told,) = query(raw, f'SHOW SERIES FROM "{kind}"')
        for one in told:
            for (key,) in one.rows:
                tags = dict(pair.split("=", 1) for pair in str(key).split(",")[1:])
                found[lines.device_of(tags)[0]] = kind
    return found


def _events(rows: Iterable[Row], kinds: Collection[str]) -> Iterator[Item]:
    """Rows of one instant by `came`; the sort after this is stable."""
    together: list[Row] = []
    for row in rows:
        if together and together[0]["time"] != row["time"]:
            yield from _event_items(together, kinds)
            together = []
        together.append(row)
    yield from _event_items(together, kinds)


def _event_items(rows: list[Row], kinds: Collection[str]) -> Iterator[Event]:
    for row in sorted(rows, key=lambda one: int(one["came"])):
        if row["kind"] in kinds:
            yield lines.event_of(row, row, row["time"])
