"""The production series store: InfluxDB of any version from 1.6, spoken to by `storage.influx_server`.

Points are folded together by InfluxDB itself (last write wins, field by field). Last values are kept in memory, as with
DuckDB, and read back beside the first writes (`storage.influx_last`); for that, three things are written beside the
points because a point alone cannot tell them: `status` (online and firmware by receive time), `seen` (a sign of life
that is newer than the newest point says), and `came` of an event (which of one instant was later).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from core.errors import StoreUnavailable
from core.kinds import KINDS, STATUS_FIELDS
from core.reading import Batch, Event, Reading, Value
from core.settings import Influx
from storage import influx_history, influx_last
from storage import influx_lines as lines
from storage import influx_rollup as rolled
from storage.history import Item, Spoken
from storage.influx_last import ASK_AGAIN_S, SPOKE, Key, Loading
from storage.influx_rollup import Column, RollUps
from storage.influx_server import DatabaseMissing, InfluxServer, LinesRefused, Series
from storage.last_values import HeardEvents, LastValues, identity
from storage.rollup import Partial, Resolution, advanced, merge, plan, step_of
from storage.series import Bucket, Horizon, PartValues, Refused
from storage.unrolled import Unrolled

DAY_MS: Final = 86_400_000
EVENTS_REMEMBERED: Final = 20_000
TIED: Final = 4
"""Events of one fault looked at to find the latest of its newest instant."""

MANY_AT_ONCE: Final = 1_000
"""No device sends so many events in one millisecond."""

KEPT_AT_ONCE: Final = 500
"""Parts whose last values are kept with one write."""


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
        self._loading = Loading(self._load)
        self._kept: dict[Key, tuple[int, str]] = {}
        """Time and text of the newest `last_part` of each part."""
        self._heard = HeardEvents()
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
            with self._lock:
                self._heard.written(batch.events)
            return list({id(one.item): one for one in refused}.values())

    def heard(self, batch: Batch) -> None:
        with self._lock:
            self._last.take(batch.readings)
            self._last.take_events(batch.events)
            self._heard.take(batch.events)

    def close(self) -> None:
        self._server.close()
        self._loading.close()

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
        """Signs of life that the newest point of a part will not show, because what came last was not the newest.

        While last values are still being read that is not known of any part, so all are written.
        """
        for one in stored:
            key = (one.device_id, one.part)
            if one.sign_of_life and self._tips.get(key, (0, 0))[0] <= one.ts:
                self._tips[key] = (one.ts, one.rx)
        keys = dict.fromkeys((one.device_id, one.part) for one in batch.readings if one.sign_of_life)
        known = self._tips if self._loading.done else {}
        unseen = [(*key, rx) for key in keys if (rx := self._last.rx(key)) and rx > known.get(key, (0, 0))[1]]
        unseen += [(event.device_id, SPOKE, event.rx) for event in batch.events if event.sign_of_life]
        return [_Line(lines.seen_line(*one), ()) for one in unseen]

    def _new(self, events: Sequence[Event]) -> list[Event]:
        """Those that did not come before, each once: the first telling of an event counts."""
        new: dict[tuple[str, str, str, int, bool], Event] = {}
        for event in events:
            if identity(event) not in self._events:
                new.setdefault(identity(event), event)
        return list(new.values())

    def _remember(self, events: Sequence[Event]) -> None:
        self._events.update(dict.fromkeys(map(identity, events)))
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
            self._kept.clear()
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
        """The server drops the data, by the retention of its databases; here we only stop asking for it.

        Last values that go with it are kept: those that have lived half their time, so that we may be away meanwhile.
        """
        self._open()
        self._keep_last(before.raw + self._keep[self._raw] * DAY_MS // 2)
        horizon = advanced(self._horizon, before, self._unrolled.hours())
        if horizon != self._horizon:
            words = ",".join(f"{name}={value}i" for name, value in horizon._asdict().items())
            self._insist(self._hours, "ms", [f"horizon {words} {horizon.raw}"])
            self._horizon = horizon

    def _keep_last(self, before: int) -> None:
        self._loading.wait()
        with self._lock:
            wanted = list(influx_last.kept_lines(self._last, before, self._kept))
        for start in range(0, len(wanted), KEPT_AT_ONCE):
            some = wanted[start : start + KEPT_AT_ONCE]
            self._place(self._hours, "ms", [_Line(line, ()) for _, _, _, line in some])
            self._kept |= {key: (ts, text) for key, ts, text, _ in some}

    def last_values(self, device_ids: Sequence[str] | None = None) -> dict[tuple[str, str], PartValues]:
        with suppress(StoreUnavailable):
            self._need_last()
        with self._lock:
            return self._last.of(device_ids)

    def last_seen(self) -> dict[str, int]:
        with suppress(StoreUnavailable):
            self._need_last()
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

    def history(
        self,
        start: int,
        end: int,
        *,
        device_ids: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        fields: Collection[str] | None = None,
    ) -> Iterator[Item]:
        self._need()
        asked = (device_ids, kinds, fields)
        return influx_history.read(self._query, self._raw, self._hours, start, end, asked, self._horizon)

    def spoken(self, start: int, end: int) -> list[Spoken]:
        self._need()
        return influx_history.spoken(self._query, self._raw, self._hours, start, end)

    def newest_events(self) -> list[Event]:
        self._need_last()  # whoever takes up work after a start wants these next, and not those of half a store
        with self._lock:  # before the server is asked: what is written in between is in both
            heard = self._heard.copy()
        known = f"fault != '{lines.NO_FAULT}' AND time >= {self._horizon.hour}ms"
        (found,) = self._query(
            self._hours,
            f'SELECT * FROM "event" WHERE {known} GROUP BY device, fault, part, site ORDER BY time DESC LIMIT {TIED}',  # noqa: S608 - nothing from outside
        )
        newest = []
        for one in found:
            row = max(one.dicts(), key=lambda row: (row["time"], row["came"]))
            newest.append(lines.event_of(row, one.tags, row["time"]))
        return heard.joined(newest, self._has)

    def _has(self, event: Event) -> bool:
        there = self.events(event.device_id, start=event.ts, end=event.ts + 1, limit=MANY_AT_ONCE)
        return identity(event) in map(identity, there)

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

    def _need_last(self) -> None:
        """As `_need`, and waits until last values are read."""
        self._need()
        self._loading.wait()

    def _open(self) -> None:
        """Once. Last values are then read on a thread of their own. Raises StoreUnavailable."""
        with self._opening:
            if not self._opened:
                try:
                    self._prepare()
                except StoreUnavailable as error:
                    self._away = error
                    raise
                finally:
                    self._asked_s = time.monotonic()
        self._loading.begin()

    def _prepare(self) -> None:
        """What must be known before anything is written: all of it is small."""
        self._server.ensure(self._keep)
        for kind in KINDS:
            self._mixed[kind] |= influx_last.mixed(influx_last.columns(self._query, self._raw, kind))
        (marks,) = self._query(self._raw, 'SELECT "pending" FROM "unrolled"')
        self._unrolled = Unrolled(ts for one in marks for ts, pending in one.rows if pending)
        names = Horizon._fields
        wanted = ", ".join(f'max("{name}")' for name in names)
        (found,) = self._query(self._hours, f'SELECT {wanted} FROM "horizon"')  # noqa: S608 - our own names
        self._horizon = Horizon(*found[0].rows[0][1:]) if found else Horizon()
        self._opened = True

    def _load(self) -> None:
        """Last values, beside the writing. What was heard meanwhile stays if it is newer. Raises StoreUnavailable."""
        loaded = influx_last.load(self._query, self._raw, self._hours)
        with self._lock:
            self._last = loaded.last.joined(self._last)
            for key, tip in loaded.tips.items():
                self._tips[key] = max(tip, self._tips.get(key, tip), key=lambda one: one[0])
            self._kept |= loaded.kept


def _statuses(readings: Sequence[Reading]) -> list[_Line]:
    """By receive time. Two of one part in one millisecond: the later one counts, as everywhere."""
    said = [one for one in readings if not STATUS_FIELDS.isdisjoint(one.fields)]
    return [_Line(lines.status_line(one), (one,)) for one in said]
