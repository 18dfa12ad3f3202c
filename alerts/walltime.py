"""What the clock and the calendar on the wall of a site show, and when they next show something else.

A zone's clock jumps. The instant of the next change is found on a stretch without a jump; where a jump lies before it,
the jump itself is looked at, and then the stretch after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple

DAY_MIN: Final = 1_440
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_DAY_MS: Final = 86_400_000


class Face(NamedTuple):
    """Something that the wall shows."""

    shows: Callable[[datetime], int]
    """By wall time."""
    next_edge: Callable[[datetime], datetime]
    """The first wall time after this one at which something else may be shown, were there no jump."""


def minute_of_day(text: str, *, end: bool = False) -> int | None:
    """Minutes since midnight of "22:00"; None when it is no time. "24:00" is an end only."""
    match = re.fullmatch(r"([0-9]{1,2}):([0-5][0-9])", text)
    if match is None:
        return None
    minute = int(match[1]) * 60 + int(match[2])
    return minute if minute < DAY_MIN or (end and minute == DAY_MIN) else None


def between(start_min: int, end_min: int) -> Face:
    """1 from `start_min` of the day (inclusive) to `end_min` (exclusive), across midnight if it must; else 0."""
    edges = sorted({start_min % DAY_MIN, end_min % DAY_MIN})

    def shows(wall: datetime) -> int:
        minute = wall.hour * 60 + wall.minute
        if start_min < end_min:
            return int(start_min <= minute < end_min)
        return int(minute >= start_min or minute < end_min)

    def next_edge(wall: datetime) -> datetime:
        midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0)
        later = (midnight + timedelta(minutes=edge + day) for day in (0, DAY_MIN) for edge in edges)
        return next(one for one in later if one > wall)

    return Face(shows, next_edge)


def _next_minute(wall: datetime) -> datetime:
    return wall.replace(second=0, microsecond=0) + timedelta(minutes=1)


def _next_hour(wall: datetime) -> datetime:
    return wall.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


def _next_day(wall: datetime) -> datetime:
    return wall.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _next_month(wall: datetime) -> datetime:
    first = _next_day(wall.replace(day=28))
    return first if first.day == 1 else (first + timedelta(days=4)).replace(day=1)


FACES: Final = {
    "minute": Face(lambda wall: wall.minute, _next_minute),
    "hour": Face(lambda wall: wall.hour, _next_hour),
    "day": Face(lambda wall: wall.day, _next_day),
    "weekday": Face(lambda wall: wall.isoweekday(), _next_day),
    "month": Face(lambda wall: wall.month, _next_month),
}


def shown(face: Face, now_ms: int, zone: tzinfo) -> int | None:
    """What the wall shows at this instant (Unix ms); None outside of the years 1 to 9999."""
    try:
        return face.shows(_wall(now_ms, zone))
    except (OverflowError, ValueError):
        return None


def next_change(face: Face, now_ms: int, zone: tzinfo) -> int | None:
    """The first instant after this one (Unix ms) at which the wall shows something else."""
    try:
        return _next_change(face, now_ms, zone)
    except (OverflowError, ValueError):
        return None


def _next_change(face: Face, now_ms: int, zone: tzinfo) -> int:
    before, ts = face.shows(_wall(now_ms, zone)), now_ms
    while True:
        wall, offset = _wall(ts, zone), _offset_ms(ts, zone)
        edge = (face.next_edge(wall).replace(tzinfo=UTC) - _EPOCH) // _MS - offset
        jump = _first_jump(ts, edge, offset, zone)
        ts = edge if jump is None else jump
        if face.shows(_wall(ts, zone)) != before:
            return ts


def _first_jump(after: int, until: int, offset: int, zone: tzinfo) -> int | None:
    """The first instant in (after, until] at which the offset is another one. Jumps lie days apart."""
    low = after
    while low < until:
        high = min(low + _DAY_MS, until)
        if _offset_ms(high, zone) != offset:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset_ms(middle, zone) == offset else (low, middle)
            return high
        low = high
    return None


def _offset_ms(ts: int, zone: tzinfo) -> int:
    return ((_EPOCH + ts * _MS).astimezone(zone).utcoffset() or timedelta(0)) // _MS


def _wall(ts: int, zone: tzinfo) -> datetime:
    return (_EPOCH + ts * _MS).astimezone(zone).replace(tzinfo=None)
