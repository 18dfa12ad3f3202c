"""The production series store: InfluxDB of any version from 1.6, spoken to by `storage.influx_server`.

Points are folded together by InfluxDB itself (last write wins, field by field). Last values are kept in memory, as with
DuckDB, and read back when the store is opened; for that, three things are written beside the points because a point
alone cannot tell them: `status` (online and firmware by receive time), `seen` (a sign of life that is newer than the
newest point says), and `came` of an event (which of one instant was later).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from core.errors import StoreUnavailable
from core.kinds import KINDS, STATUS_FIELDS, all_fields
from core.reading import Batch, Event, Reading, Value
from core.settings import Influx
from storage import influx_lines as lines
from storage import influx_rollup as rolled
from storage.influx_rollup import Column, RollUps
from storage.influx_server import DatabaseMissing, InfluxServer, LinesRefused, Series
from storage.last_values import LastValues, Part
from storage.rollup import Partial, Resolution, advanced, merge, plan, step_of
from storage.series import Bucket, Horizon, PartValues, Refused
from storage.unrolled import Unrolled

DAY_MS: Final = 86_400_000
ASK_AGAIN_S: Final = 5.0
"""A store that was away when we started is asked for its last values this often."""

EVENTS_REMEMBERED: Final = 20_000
TIED: Final = 4
"""Events of one fault looked at to find the latest of its newest instant."""

SPOKE: Final = "event"
"""The part under which `seen` keeps when a device last sent an event."""

Key = tuple[str, str]
"""Device id and part."""


class _Line(NamedTuple):
    text: str
    items: tuple[Reading | Event, ...]
    """What is refused when the line is."""


class InfluxSeries:
    """Keeps the promises of `storage.series.SeriesStore`."""

    def __init__(self, settings: Influx, *, raw_days: int, minute_days: int, hour_days: int) -> None:
        self._server = InfluxServer(settings)
        self._raw = settings.bucket
        self._minutes, self._hours = f"{settings.bucket}_1m", f"{settings.bucket}_1h"
        self._keep = {self._raw: raw_days, self._minutes: minute_days, self._hours: hour_days}
        self._rollups = RollUps(self._server, self._raw, self._minutes, self._hours)
        self._writing = threading.Lock()
        """Held from the mark of an hour to its data, so that a roll-up begins before or after a write."""
        self._unrolled = Unrolled(())
        self._horizon = Horizon()
        self._lock = threading.Lock()
        self._last = LastValues({}, {})
        self._tips: dict[Key, tuple[int, int]] = {}
        """Of each part: time and `rx` of its newest point that is a sign of life, as the database has it."""
        self._mixed: dict[str, set[str]] = {kind: set() for kind in KINDS}
        """Names outside the contract that were text or a bool somewhere, by kind."""
        self._events: OrderedDict[tuple[str, str, str, int, bool], None] = OrderedDict()
        self._came = 0
        self._opening = threading.Lock()
        self._opened = False
        self._asked_s = 0.0
        self._away: StoreUnavailable | None = None
        """Why it could not be opened when it was last tried."""
        with suppress(StoreUnavailable):
            self._open()

    # writing

    def write(self, batch: Batch) -> list[Refused]:
        if not self._opened:
            self._open()
        with self._writing:
            readings, refused = self._young_enough(batch.readings)
            events = self._new(batch.events)
            for kind, name in lines.others(readings):
                self._mixed[kind].add(name)
            with self._lock:
                self._last.take(batch.readings)  # one that is too old to be stored is a sign of life all the same
                self._last.take_events(events)
                seen = self._unseen(readings, batch)
            unmarked = self._unrolled.touch(readings)
            marks = [_Line(f"unrolled pending=t {hour}", ()) for hour in unmarked]
            refused += self._place(self._raw, "ms", [*marks, *self._points(readings), *_statuses(readings), *seen])
            self._unrolled.marked(unmarked)
            refused += self._place(self._hours, "ns", [self._event_line(event) for event in events])
            self._remember(events)
            return list({id(one.item): one for one in refused}.values())

    def heard(self, batch: Batch) -> None:
        with self._lock:
            self._last.take(batch.readings)
            self._last.take_events(batch.events)

    def close(self) -> None:
        self._server.close()

    def _young_enough(self, readings: list[Reading]) -> tuple[list[Reading], list[Refused]]:
        """Samples older than raw data is kept would be refused one by one: that can be known without asking."""
        longest, horizon = self._keep[self._raw] * DAY_MS, self._horizon.raw
        young = [one for one in readings if one.rx - one.ts < longest and one.ts >= horizon]
        if len(young) == len(readings):
            return readings, []
        reason = f"older than raw data is kept (series.raw_days = {self._keep[self._raw]})"
        kept = set(map(id, young))
        return young, [Refused(one, reason) for one in readings if id(one) not in kept]

    def _points(self, readings: Sequence[Reading]) -> list[_Line]:
        """A line per point: what a server does with two lines of one point in one request is its own affair."""
        points: dict[tuple[str, str, int], list[Reading]] = {}
        for one in readings:
            points.setdefault((one.device_id, one.part, one.ts), []).append(one)
        return [self._point(pieces) for pieces in points.values()]

    def _point(self, pieces: Sequence[Reading]) -> _Line:
        one, alive = pieces[-1], pieces[-1].sign_of_life
        if len(pieces) > 1:
            fields: dict[str, Value] = {}
            for piece in pieces:
                fields |= piece.fields
            signs = [piece.rx for piece in pieces if piece.sign_of_life]
            one, alive = one._replace(fields=fields, rx=signs[-1] if signs else one.rx), bool(signs)
        return _Line(lines.reading_line(one, alive=alive, mixed=self._mixed[one.kind]), tuple(pieces))

    def _unseen(self, stored: Sequence[Reading], batch: Batch) -> list[_Line]:
        """Signs of life that the newest point of a part will not show, because what came last was not the newest."""
        for one in stored:
            key = (one.device_id, one.part)
            if one.sign_of_life and self._tips.get(key, (0, 0))[0] <= one.ts:
                self._tips[key] = (one.ts, one.rx)
        keys = dict.fromkeys((one.device_id, one.part) for one in batch.readings if one.sign_of_life)
        unseen = [(*key, rx) for key in keys if (rx := self._last.rx(key)) and rx > self._tips.get(key, (0, 0))[1]]
        unseen += [(event.device_id, SPOKE, event.rx) for event in batch.events if event.sign_of_life]
        return [_Line(lines.seen_line(*one), ()) for one in unseen]

    def _new(self, events: Sequence[Event]) -> list[Event]:
        """Those that did not come before, each once: the first telling of an event counts."""
        new: dict[tuple[str, str, str, int, bool], Event] = {}
        for event in events:
            if _identity(event) not in self._events:
                new.setdefault(_identity(event), event)
        return list(new.values())

    def _remember(self, events: Sequence[Event]) -> None:
        self._events.update(dict.fromkeys(map(_identity, events)))
        while len(self._events) > EVENTS_REMEMBERED:
            self._events.popitem(last=False)

    def _event_line(self, event: Event) -> _Line:
        self._came = max(self._came + 1, event.rx * 1_000_000)
        return _Line(lines.event_line(event, self._came), (event,))

    def _place(self, database: str, precision: str, written: Sequence[_Line]) -> list[Refused]:
        """Writes the lines; those that the server will never take are found by halving, and named."""
        if not written:
            return []
        try:
            self._insist(database, precision, [line.text for line in written])
        except LinesRefused as error:
            if len(written) == 1:
                return [Refused(item, f"InfluxDB: {error}") for item in written[0].items]
            middle = len(written) // 2
            return [
                *self._place(database, precision, written[:middle]),
                *self._place(database, precision, written[middle:]),
            ]
        return []

    def _insist(self, database: str, precision: str, texts: Sequence[str]) -> None:
        try:
            self._server.write(database, texts, precision)
        except DatabaseMissing:  # dropped under us, and our marks with it
            self._server.ensure(self._keep)
            self._events.clear()
            if marks := [f"unrolled pending=t {hour}" for hour in self._unrolled.hours()]:
                self._server.write(self._raw, marks, "ms")
            self._server.write(database, texts, precision)

    # reading

    def window(
        self, kind: str, device_id: str, part: str, field: str, *, start: int, end: int, step: int
    ) -> list[Bucket]:
        self._need()
        of = rolled.column(kind, field, self._mixed[kind])
        here = f'FROM "{kind}" WHERE {lines.where(device_id, part)}'
        horizon = self._horizon
        slices = plan(start, end, step, unrolled=self._unrolled.of(device_id), horizon=horizon)
        return merge(
            partial
            for one in rolled.slices_within(slices, horizon)
            for partial in self._partials(of, f"{here} AND {lines.span(one.start, one.end)}", one.rows, start, step)
        )

    def _partials(self, of: Column, source: str, resolution: Resolution, start: int, step: int) -> list[Partial]:
        """What one slice of a window says."""
        raw = resolution is Resolution.RAW
        database = {Resolution.RAW: self._raw, Resolution.MINUTE: self._minutes, Resolution.HOUR: self._hours}[
            resolution
        ]
        if of.mixed:
            wanted = f'"{of.raw}", "{lines.OTHER}{lines.safe(of.name)}"' if raw else rolled.mixed_selection(of)
            (found,) = self._query(database, f"SELECT {wanted} {source}")
            return rolled.partials_of_points(found, step) if raw else rolled.partials_of_rows(found, start, step)
        wanted = rolled.raw_selection(of) if raw else rolled.rolled_selection(of)
        (found,) = self._query(database, f"SELECT {wanted} {source} GROUP BY time({step}ms) fill(none)")
        return [
            rolled.partial_of(step_of(begin, start, step), cells, of)
            for one in found
            for begin, *cells in one.rows
            if cells[0]
        ]

    def unrolled(self) -> list[int]:
        self._need()
        return self._unrolled.hours()

    def roll_up(self, hour: int) -> None:
        self._open()
        if hour not in self._unrolled:
            return
        with self._writing:
            devices = self._unrolled.begin(hour)
        if devices != frozenset():  # else all is done but the mark
            self._rollups.make(hour, devices, self._mixed)
        with self._writing:
            if self._unrolled.rolled(hour):
                self._unrolled.unmark([hour])  # whether or not we hear that the mark is gone
                with suppress(LinesRefused):  # too old by now: the server has dropped the mark itself
                    self._insist(self._raw, "ms", [f"unrolled pending=f {hour}"])
                self._unrolled.forget(hour)

    def expire(self, before: Horizon) -> None:
        """The server drops the data, by the retention of its databases; here we only stop asking for it."""
        self._open()
        horizon = advanced(self._horizon, before, self._unrolled.hours())
        if horizon != self._horizon:
            words = ",".join(f"{name}={value}i" for name, value in horizon._asdict().items())
            self._insist(self._hours, "ms", [f"horizon {words} {horizon.raw}"])
            self._horizon = horizon

    def last_values(self, device_ids: Sequence[str] | None = None) -> dict[tuple[str, str], PartValues]:
        with suppress(StoreUnavailable):
            self._need()
        with self._lock:
            return self._last.of(device_ids)

    def last_seen(self) -> dict[str, int]:
        with suppress(StoreUnavailable):
            self._need()
        with self._lock:
            return self._last.seen()

    def events(self, device_id: str, *, start: int, end: int, limit: int) -> list[Event]:
        here = f"{lines.where(device_id)} AND {lines.span(max(start, self._horizon.hour), end)}"
        (found,) = self._query(
            self._hours,
            f'SELECT * FROM "event" WHERE {here} ORDER BY time DESC LIMIT {limit}',  # noqa: S608 - `where` is harmless
        )
        rows = [row for one in found for row in one.dicts()]
        rows.sort(key=lambda row: (row["time"], row["came"]), reverse=True)
        return [lines.event_of(row, row, row["time"]) for row in rows]

    def newest_events(self) -> list[Event]:
        self._need()  # whoever takes up work after a start wants the last values next, and not those of half a store
        known = f"fault != '{lines.NO_FAULT}' AND time >= {self._horizon.hour}ms"
        (found,) = self._query(
            self._hours,
            f'SELECT * FROM "event" WHERE {known} GROUP BY device, fault, part, site ORDER BY time DESC LIMIT {TIED}',  # noqa: S608 - nothing from outside
        )
        newest = []
        for one in found:
            row = max(one.dicts(), key=lambda row: (row["time"], row["came"]))
            newest.append(lines.event_of(row, one.tags, row["time"]))
        return newest

    def _query(self, database: str, *statements: str) -> list[list[Series]]:
        try:
            return self._server.query(database, statements)
        except DatabaseMissing:
            self._server.ensure(self._keep)
            return self._server.query(database, statements)

    # opening

    def _need(self) -> None:
        """For a question: opened, or StoreUnavailable; who asks too soon after a failure is not kept waiting."""
        if not self._opened and self._away is not None and time.monotonic() - self._asked_s < ASK_AGAIN_S:
            raise StoreUnavailable(str(self._away))
        self._open()

    def _open(self) -> None:
        """Reads back what is known, once. What was heard meanwhile stays where it is newer. Raises StoreUnavailable."""
        with self._opening:
            if not self._opened:
                try:
                    self._read_back()
                except StoreUnavailable as error:
                    self._away = error
                    raise
                finally:
                    self._asked_s = time.monotonic()

    def _read_back(self) -> None:
        self._server.ensure(self._keep)
        parts: dict[Key, Part] = {}
        for kind in KINDS:
            parts |= self._load_kind(kind)
        spoke = self._load_beside(parts)
        self._load_rollups()
        with self._lock:
            self._last = LastValues(parts, spoke).joined(self._last)
        self._opened = True

    def _load_rollups(self) -> None:
        (marks,) = self._query(self._raw, 'SELECT "pending" FROM "unrolled"')
        self._unrolled = Unrolled(ts for one in marks for ts, pending in one.rows if pending)
        names = Horizon._fields
        wanted = ", ".join(f'max("{name}")' for name in names)
        (found,) = self._query(self._hours, f'SELECT {wanted} FROM "horizon"')  # noqa: S608 - our own names
        self._horizon = Horizon(*found[0].rows[0][1:]) if found else Horizon()

    def _load_kind(self, kind: str) -> dict[Key, Part]:
        """The newest value of every field, by part: one statement per field, because only so its time comes with it."""
        (keys,) = self._query(self._raw, f'SHOW FIELD KEYS FROM "{kind}"')
        columns = [row[0] for one in keys for row in one.rows]
        found = dict(zip(columns, self._query(self._raw, *(_newest(column, kind) for column in columns)), strict=True))
        parts: dict[Key, Part] = {}
        for column, rows in found.items():
            for key, ts, value in _by_part(rows):
                part = parts.setdefault(key, Part(kind))
                part.ts = max(part.ts, ts)
                if column == "rx":
                    self._tips[key] = (ts, int(value))
                    part.rx = int(value)
        known = all_fields(kind)
        for name in known.keys() - STATUS_FIELDS:
            for key, ts, value in _by_part(found.get(name, [])):
                parts[key].put(name, known[name].type(value), ts)
        self._load_outside(kind, found, parts)
        return parts

    def _load_outside(self, kind: str, found: dict[str, list[Series]], parts: dict[Key, Part]) -> None:
        """Fields outside the contract: of a number and a text the newer one; at one instant the text, unless empty."""
        self._mixed[kind] |= {lines.unsafe(c.removeprefix(lines.OTHER)) for c in found if c.startswith(lines.OTHER)}
        for prefix in (lines.NUMBER, lines.OTHER):
            for column, rows in found.items():
                if not column.startswith(prefix):
                    continue
                name = lines.unsafe(column.removeprefix(prefix))
                for key, ts, raw in _by_part(rows):
                    value = float(raw) if prefix == lines.NUMBER else lines.outside_value(None, raw)
                    if value is not None:
                        parts[key].put(name, value, ts)

    def _load_beside(self, parts: dict[Key, Part]) -> dict[str, int]:
        """What points cannot tell: status by receive time, and the newest signs of life."""
        names = sorted(STATUS_FIELDS)
        statuses = [_newest(name, "status").replace(" FROM", f', "{name}_ts" FROM') for name in names]
        *by_name, seen = self._query(self._raw, *statuses, _newest("rx", "seen"))
        for name, found in zip(names, by_name, strict=True):
            for one in found:
                for rx, value, ts in one.rows:
                    part = parts.get(lines.device_of(one.tags))
                    if part is not None:
                        part.put_status(name, value, ts, rx)
        spoke: dict[str, int] = {}
        for (device_id, part_name), rx, _ in _by_part(seen):
            if part_name == SPOKE:
                spoke[device_id] = rx
            elif (device_id, part_name) in parts:
                held = parts[device_id, part_name]
                held.rx = max(held.rx or 0, rx)
        return spoke


def _statuses(readings: Sequence[Reading]) -> list[_Line]:
    """By receive time. Two of one part in one millisecond: the later one counts, as everywhere."""
    said = [one for one in readings if not STATUS_FIELDS.isdisjoint(one.fields)]
    return [_Line(lines.status_line(one), (one,)) for one in said]


def _newest(column: str, measurement: str) -> str:
    return f'SELECT last("{column}") FROM "{measurement}" GROUP BY device, part, site'  # noqa: S608 - columns are `safe`


def _by_part(found: Sequence[Series]) -> list[tuple[Key, int, Any]]:
    """(key, time, value) of each row of a `_newest` answer."""
    return [(lines.device_of(one.tags), row[0], row[1]) for one in found for row in one.rows]


def _identity(event: Event) -> tuple[str, str, str, int, bool]:
    return event.device_id, event.part, event.id, event.ts, event.raised
