"""Roll-ups in InfluxDB: minute and hour rows in databases of their own, written by us and never by the server.

A row is a point at the start of its step. Of a field `f` it has `f.n` (points), `f.last`, and of numbers `f.sum`,
`f.min` and `f.max`. A field outside the contract whose type alternates has `f.text` beside them: the last value as JSON
while that is no number, and `f.numeric`, false where some value of the step was none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, Final, NamedTuple

import structlog

from core.kinds import KINDS, all_fields
from core.reading import Value
from storage import influx_lines as lines
from storage.influx_server import InfluxServer, LinesRefused, Series
from storage.rollup import Partial, Resolution, Slice, added, step_of
from storage.series import HOUR_MS, MINUTE_MS, Horizon

ROWS_AT_ONCE: Final = 10_000
"""Of one answer or one write: a roll-up works beside the writes, in bites."""

DEVICES_NAMED: Final = 50
"""With more devices than this, a question for all of them is cheaper."""

_log = structlog.get_logger()

_STATISTICS: Final = ("n", "last", "sum", "min", "max")


class Column(NamedTuple):
    """A field as the database has it."""

    name: str
    raw: str
    """Of raw points; of numbers, where the type alternates."""
    type: type
    mixed: bool

    @property
    def numeric(self) -> bool:
        return self.type in (int, float)


def column(kind: str, field: str, mixed: Collection[str]) -> Column:
    """Of any field; `mixed`: names outside the contract that were no numbers somewhere."""
    spec = all_fields(kind).get(field)
    if spec:
        return Column(field, field, spec.type, False)
    return Column(field, lines.NUMBER + lines.safe(field), float, field in mixed)


def raw_selection(of: Column) -> str:
    """What to ask of raw points, grouped by time: answered as `partial_of` reads it."""
    wanted = f'count("{of.raw}"), last("{of.raw}")'
    return f'{wanted}, sum("{of.raw}"), min("{of.raw}"), max("{of.raw}")' if of.numeric else wanted


def rolled_selection(of: Column) -> str:
    """The same of rows."""
    wanted = f'sum("{of.raw}.n"), last("{of.raw}.last")'
    if not of.numeric:
        return wanted
    return f'{wanted}, sum("{of.raw}.sum"), min("{of.raw}.min"), max("{of.raw}.max")'


def partial_of(start: int, cells: Sequence[Any], of: Column) -> Partial:
    """From points, last and, of numbers, sum, min and max. JSON does not tell 2 from 2.0, so the type is restored."""
    points, last, *numbers = cells
    total, low, high = (of.type(number) for number in numbers) if numbers else (None, None, None)
    return Partial(start, int(points), of.type(last), total, low, high)


def partials_of_points(found: Iterable[Series], step: int) -> list[Partial]:
    """Of a field whose type alternates, from rows of time, number and other."""
    partials = []
    for one in found:
        for ts, number, other in one.rows:
            value = lines.outside_value(number, other)
            if value is not None:
                exact = None if isinstance(value, bool | str) else value
                partials.append(Partial(ts - ts % step, 1, value, exact, exact, exact))
    return partials


def mixed_selection(of: Column) -> str:
    """Rows of a field whose type alternates, each as it is."""
    return ", ".join(f'"{of.raw}.{name}"' for name in (*_STATISTICS, "text", "numeric"))


def partials_of_rows(found: Iterable[Series], start: int, step: int) -> list[Partial]:
    """Of a field whose type alternates, from what `mixed_selection` asked for."""
    partials = []
    for one in found:
        for ts, points, last, total, low, high, text, numeric in one.rows:
            if points is None:
                continue
            numbers = (None, None, None) if numeric is False else (total, low, high)
            partials.append(Partial(step_of(ts, start, step), points, lines.outside_value(last, text), *numbers))  # type: ignore[arg-type] # a row with points has a last value
    return partials


# --- making them -----------------------------------------------------------------------------------------------------

Part = tuple[str, str]
"""Device id and part."""

Rows = dict[tuple[Part, int], dict[str, Partial]]
"""By part and start: what is known of each field."""


class RollUps:
    """Makes the rows of an hour from its raw points."""

    def __init__(self, server: InfluxServer, raw: str, minutes: str, hours: str) -> None:
        self._server = server
        self._raw, self._minutes, self._hours = raw, minutes, hours

    def make(self, hour: int, devices: frozenset[str] | None, mixed: Mapping[str, set[str]]) -> None:
        """Doing it again gives the same rows. Raises StoreUnavailable: some may be there, and none is wrong."""
        for kind in KINDS:
            columns = self._columns(kind, mixed[kind])
            if columns:
                self._make_kind(kind, hour, devices, columns)

    def _make_kind(self, kind: str, hour: int, devices: frozenset[str] | None, columns: Sequence[Column]) -> None:
        whole: dict[Part, dict[str, list[Partial]]] = {}
        minutes = self._minutes_at_once(kind, hour, devices)
        for begin in range(hour, hour + HOUR_MS, minutes * MINUTE_MS):
            end = min(begin + minutes * MINUTE_MS, hour + HOUR_MS)
            rows = self._minute_rows(kind, begin, end, devices, columns)
            self._write(self._minutes, kind, rows, columns)
            for (part, _), fields in sorted(rows.items(), key=lambda row: row[0][1]):
                for name, partial in fields.items():
                    whole.setdefault(part, {}).setdefault(name, []).append(partial._replace(start=hour))
        hours: Rows = {
            (part, hour): {name: reduce(added, partials) for name, partials in fields.items()}
            for part, fields in whole.items()
        }
        self._write(self._hours, kind, hours, columns)

    def _minute_rows(
        self, kind: str, begin: int, end: int, devices: frozenset[str] | None, columns: Sequence[Column]
    ) -> Rows:
        where = f"{lines.span(begin, end)}{_only(devices)}"
        rows: Rows = {}
        plain = [one for one in columns if not one.mixed]
        if plain:
            wanted = ", ".join(map(raw_selection, plain))
            statement = f'SELECT {wanted} FROM "{kind}" WHERE {where} GROUP BY time(1m), device, part, site fill(none)'  # noqa: S608 - names are safe
            for one in self._server.query(self._raw, [statement])[0]:
                part = lines.device_of(one.tags)
                for start, *cells in one.rows:
                    rows.setdefault((part, start), {}).update(_cells(start, cells, plain))
        for of in columns:
            if of.mixed:
                self._add_mixed(rows, kind, of, where)
        return rows

    def _add_mixed(self, rows: Rows, kind: str, of: Column, where: str) -> None:
        other = lines.OTHER + lines.safe(of.name)
        statement = f'SELECT "{of.raw}", "{other}" FROM "{kind}" WHERE {where} GROUP BY device, part, site'  # noqa: S608 - names are safe
        for one in self._server.query(self._raw, [statement])[0]:
            part = lines.device_of(one.tags)
            for partial in partials_of_points([one], MINUTE_MS):
                fields = rows.setdefault((part, partial.start), {})
                held = fields.get(of.name)
                fields[of.name] = partial if held is None else added(held, partial)

    def _write(self, database: str, kind: str, rows: Rows, columns: Sequence[Column]) -> None:
        by_name = {one.name: one for one in columns}
        texts = [
            f"{lines.head(kind, *part)} {','.join(_words(by_name[name], one) for name, one in fields.items())} {start}"
            for (part, start), fields in rows.items()
            if fields
        ]
        for first in range(0, len(texts), ROWS_AT_ONCE):
            self._place(database, texts[first : first + ROWS_AT_ONCE])

    def _place(self, database: str, texts: Sequence[str]) -> None:
        """Rows that the server will never take (too old, or a type that another program chose) must not stop others."""
        try:
            self._server.write(database, texts, "ms")
        except LinesRefused as error:
            if len(texts) == 1:
                _log.warning("InfluxDB refuses a row of a roll-up", database=database, row=texts[0], reason=str(error))
                return
            middle = len(texts) // 2
            self._place(database, texts[:middle])
            self._place(database, texts[middle:])

    def _columns(self, kind: str, mixed: Collection[str]) -> list[Column]:
        """The fields that raw points have."""
        (keys,) = self._server.query(self._raw, [f'SHOW FIELD KEYS FROM "{kind}"'])
        names = {row[0] for one in keys for row in one.rows}
        known = [column(kind, name, ()) for name in all_fields(kind) if name in names]
        outside = {
            lines.unsafe(name.removeprefix(prefix))
            for name in names - all_fields(kind).keys()
            for prefix in (lines.NUMBER, lines.OTHER)
            if name.startswith(prefix)
        }
        return known + [column(kind, name, mixed) for name in sorted(outside)]

    def _minutes_at_once(self, kind: str, hour: int, devices: frozenset[str] | None) -> int:
        """How many minutes one question may ask for, so that its answer stays small."""
        if devices is not None and len(devices) <= DEVICES_NAMED:
            return 60
        each = (
            f'SELECT last("rx") AS n FROM "{kind}" WHERE {lines.span(hour, hour + HOUR_MS)} GROUP BY device, part, site'  # noqa: S608 - names are safe
        )
        statement = f'SELECT count("n") FROM ({each})'  # noqa: S608 - as above
        (found,) = self._server.query(self._raw, [statement])
        parts = found[0].rows[0][1] if found else 1
        return max(1, min(60, ROWS_AT_ONCE // max(1, int(parts))))


def slices_within(slices: Iterable[Slice], horizon: Horizon) -> list[Slice]:
    """Rows older than everything we keep may still be in the database; they are not asked for."""
    return [
        one if one.rows is Resolution.RAW else one._replace(start=max(one.start, horizon.hour))
        for one in slices
        if one.rows is Resolution.RAW or one.end > horizon.hour
    ]


def _cells(start: int, cells: Sequence[Any], columns: Sequence[Column]) -> dict[str, Partial]:
    """One row of an answer to all columns at once."""
    found, at = {}, 0
    for of in columns:
        width = 5 if of.numeric else 2
        some = cells[at : at + width]
        at += width
        if some[0]:
            found[of.name] = partial_of(start, some, of)
    return found


def _words(of: Column, one: Partial) -> str:
    """The columns of one field of one row."""
    words = [f"{of.raw}.n={one.points}i"]
    if not of.mixed:
        words.append(f"{of.raw}.last={_literal(one.last, of)}")
    elif isinstance(one.last, bool | str):
        words.append(f"{of.raw}.text={lines.text(json.dumps(one.last, ensure_ascii=False))}")
    else:
        words += [f"{of.raw}.last={float(one.last)!r}", f'{of.raw}.text=""']
    if one.total is not None and one.minimum is not None and one.maximum is not None:
        words.append(f"{of.raw}.sum={float(one.total)!r}")
        words += [f"{of.raw}.min={float(one.minimum)!r}", f"{of.raw}.max={float(one.maximum)!r}"]
    if of.mixed:
        words.append(f"{of.raw}.numeric={'f' if one.total is None else 't'}")
    return ",".join(words)


def _literal(value: Value, of: Column) -> str:
    if of.type is bool:
        return "t" if value else "f"
    if of.type is int:
        return f"{value}i"
    return lines.text(str(value)) if of.type is str else f"{float(value)!r}"


def _only(devices: frozenset[str] | None) -> str:
    if devices is None or len(devices) > DEVICES_NAMED:
        return ""
    return f" AND ({' OR '.join(f'({lines.where(device_id)})' for device_id in sorted(devices))})"
