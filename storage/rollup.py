"""Roll-ups, the part that is the same for every store: which rows answer a window, and how their answers are joined.

Raw points, minute rows and hour rows hold the same data for ever shorter answers. An hour that is not rolled up is read
raw. All of this is pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

from core.reading import Value
from storage.series import HOUR_MS, MINUTE_MS, Bucket, Horizon


class Resolution(IntEnum):
    """What one row covers, in ms."""

    RAW = 1
    MINUTE = MINUTE_MS
    HOUR = HOUR_MS


_FINER = {Resolution.HOUR: Resolution.MINUTE, Resolution.MINUTE: Resolution.RAW}


class Slice(NamedTuple):
    """A stretch of time, and the rows that answer for it. Minute and hour slices hold whole minutes and hours."""

    start: int
    end: int
    rows: Resolution


class Partial(NamedTuple):
    """What one slice knows of one step. `total`, `minimum`, `maximum` are None unless every value is a number."""

    start: int
    points: int
    last: Value
    total: float | None
    minimum: float | None
    maximum: float | None


def plan(start: int, end: int, step: int, *, unrolled: Collection[int], horizon: Horizon) -> list[Slice]:
    """Which rows answer a window, in order of time; together they cover it, each instant once.

    Hours in `unrolled` (of the device that is asked about, or of all) are read raw. Rows are used where they give the
    same answer as the points: whole ones, of a length that divides the step. Before the horizon of raw data the rows
    that are left are used as they are: the first and the last slice may then reach over the window's borders.
    """
    if start >= end:
        return []
    slices: list[Slice] = []
    for begin, until in pairwise(_borders(start, end, unrolled, horizon)):
        finest = _finest(begin, horizon)
        if finest is Resolution.RAW and begin // HOUR_MS * HOUR_MS in unrolled:
            slices.append(Slice(begin, until, Resolution.RAW))
        else:
            slices += _cover(begin, until, max(_coarsest(step), finest), finest)
    return _joined(slices)


def step_of(row: int, start: int, step: int) -> int:
    """The step at which a row that starts at `row` is counted in a window from `start`."""
    return max(row, start) // step * step


def merge(partials: Iterable[Partial]) -> list[Bucket]:
    """The buckets of a window from what its slices said, slices in order of time."""
    steps: dict[int, Partial] = {}
    for one in partials:
        held = steps.get(one.start)
        steps[one.start] = one if held is None else added(held, one)
    return [
        Bucket(one.start, one.points, one.last, _mean(one), one.minimum, one.maximum)
        for _, one in sorted(steps.items())
    ]


def advanced(held: Horizon, wanted: Horizon, unrolled: Collection[int]) -> Horizon:
    """Where the horizons stand after `SeriesStore.expire(wanted)`: in whole hours, never back, coarse behind fine."""
    waiting = min((hour for hour in unrolled if hour >= held.raw), default=wanted.raw)
    raw = max(held.raw, _floor(min(wanted.raw, waiting), HOUR_MS))
    minute = max(held.minute, _floor(min(wanted.minute, raw), HOUR_MS))
    return Horizon(raw, minute, max(held.hour, _floor(min(wanted.hour, minute), HOUR_MS)))


# --- small things ----------------------------------------------------------------------------------------------------


def _borders(start: int, end: int, unrolled: Collection[int], horizon: Horizon) -> list[int]:
    """Where the rows that answer may change: between two of these they are of one kind."""
    waiting = [hour for hour in unrolled if hour >= horizon.raw]
    changes = {*waiting, *(hour + HOUR_MS for hour in waiting), horizon.raw, horizon.minute}
    return [start, *sorted(one for one in changes if start < one < end), end]


def _finest(ts: int, horizon: Horizon) -> Resolution:
    if ts >= horizon.raw:
        return Resolution.RAW
    return Resolution.MINUTE if ts >= horizon.minute else Resolution.HOUR


def _coarsest(step: int) -> Resolution:
    return next(rows for rows in (Resolution.HOUR, Resolution.MINUTE, Resolution.RAW) if step % rows == 0)


def _cover(start: int, end: int, rows: Resolution, finest: Resolution) -> list[Slice]:
    """Whole rows in the middle, finer ones at both ends; the finest there are reach over the ends."""
    if start >= end:
        return []
    if rows is finest:
        return [Slice(_floor(start, rows), -_floor(-end, rows), rows)]
    begin, until = -_floor(-start, rows), _floor(end, rows)
    finer = _FINER[rows]
    if begin >= until:
        return _cover(start, end, finer, finest)
    return [*_cover(start, begin, finer, finest), Slice(begin, until, rows), *_cover(until, end, finer, finest)]


def _joined(slices: Iterable[Slice]) -> list[Slice]:
    """Neighbours of one kind become one."""
    joined: list[Slice] = []
    for one in slices:
        if joined and joined[-1].rows is one.rows and joined[-1].end == one.start:
            joined[-1] = joined[-1]._replace(end=one.end)
        else:
            joined.append(one)
    return joined


def added(one: Partial, later: Partial) -> Partial:
    """Both as one, at the step of the first."""
    points = one.points + later.points
    if one.total is None or later.total is None:
        return Partial(one.start, points, later.last, None, None, None)
    assert one.minimum is not None
    assert one.maximum is not None
    assert later.minimum is not None
    assert later.maximum is not None
    lowest, highest = min(one.minimum, later.minimum), max(one.maximum, later.maximum)
    return Partial(one.start, points, later.last, one.total + later.total, lowest, highest)


def _mean(one: Partial) -> float | None:
    return None if one.total is None else one.total / one.points


def _floor(ts: int, rows: int) -> int:
    return ts // rows * rows
