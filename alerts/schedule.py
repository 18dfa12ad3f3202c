"""When a rule counts: hours of the day and days of the week, in the zone of the site.

    "22:00-06:00"                              every night; the hours after midnight belong to the day before
    {days: mon-fri, hours: "08:00-18:00"}      working hours
    [..., ...]                                 any of several

A start counts, an end does not any more. Times are what the clock on the wall shows, also where it is put forward or
back: a time that does not exist that day is the first instant after the gap, and a window that lies in the gap is left
out. Where an hour exists twice, a window that starts in it starts the first time, and one that ends in it ends the
second time, so that none is cut in two; one that ends as that hour begins has nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final, NamedTuple

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EXPECTED: Final = 'a schedule is hours like "22:00-06:00", or {days: mon-fri, hours: "08:00-18:00"}, or a list of those'
_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\s*-\s*(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)")
_FULL_DAY_MIN: Final = 24 * 60
_LOOK_AHEAD_DAYS: Final = 16
"""Every window comes back within a week, or within two where the clock was put forward over it."""


class Window(NamedTuple):
    """Hours of some days. An end at or before the start lies on the next day; a full day ends at minute 1 440."""

    days: frozenset[int]
    """0 is Monday; the day on which the window starts."""
    start_min: int
    end_min: int


class Schedule(NamedTuple):
    """The windows of a rule; it counts in any of them."""

    windows: tuple[Window, ...]

    def covers(self, ts_ms: int, zone: tzinfo) -> bool:
        """Whether this instant (Unix ms) lies in a window, by the clock of that zone."""
        today = _local_day(ts_ms, zone)
        return any(start <= ts_ms < end for start, end in self._spans(today - 1, today + 2, zone))

    def next_edge(self, ts_ms: int, zone: tzinfo) -> int | None:
        """The first instant after `ts_ms` at which `covers` changes; None: it never does."""
        today = _local_day(ts_ms, zone)
        last = today + _LOOK_AHEAD_DAYS
        joined = _joined(sorted(self._spans(today - 1, last, zone)))
        horizon = _first_ms(last - 1, 0, zone)
        edge = min((at for span in joined for at in span if at > ts_ms), default=None)
        return None if edge is None or edge >= horizon else edge

    def _spans(self, first: int, last: int, zone: tzinfo) -> Iterator[tuple[int, int]]:
        """From when to when (Unix ms) the windows of the days `first` to `last - 1` are, as ordinals."""
        for day in range(first, last):
            yield from _spans_of(self.windows, day, zone)


def parse_schedule(data: object) -> Schedule:
    """The schedule that a rule file says. ValueError says what is expected."""
    entries = data if isinstance(data, list) else [data]
    if not entries:
        raise ValueError(f"an empty list; {EXPECTED}")
    return Schedule(tuple(_window(entry) for entry in entries))


def _window(entry: object) -> Window:
    every_day = frozenset(range(len(DAYS)))
    if isinstance(entry, str):
        return Window(every_day, *_hours(entry))
    if not isinstance(entry, dict):
        raise ValueError(f"{EXPECTED}; not {entry!r}")  # noqa: TRY004 - a fault of the file, told like the others
    unknown = [str(key) for key in entry if key not in ("days", "hours")]
    if unknown:
        raise ValueError(f"unknown key '{unknown[0]}'; a window has 'days' and 'hours'")
    if not entry:
        raise ValueError(EXPECTED)
    days = _days(entry["days"]) if "days" in entry else every_day
    return Window(days, *_hours(entry.get("hours", "00:00-24:00")))


def _hours(text: Any) -> tuple[int, int]:
    match = _HOURS.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'hours are a start and an end, like "22:00-06:00"; not {text!r}')
    start = int(match[1]) * 60 + int(match[2])
    end = _FULL_DAY_MIN if match[3] is None else int(match[3]) * 60 + int(match[4])
    if start == end:
        raise ValueError(f"'{text}' starts and ends at the same time; a full day is 00:00-24:00")
    return start, end


def _days(data: object) -> frozenset[int]:
    """`mon-fri`, `mon,wed`, `[sat, sun]`; a range may go over the end of the week: `fri-mon`."""
    parts = data.split(",") if isinstance(data, str) else data
    if not isinstance(parts, list) or not parts:
        raise ValueError(f"days are like mon-fri or mon,wed; not {data!r}")
    found: set[int] = set()
    for part in parts:
        first, _, last = str(part).strip().lower().partition("-")
        if first not in DAYS or (last or first) not in DAYS or str(part).strip().endswith("-"):
            raise ValueError(f"'{part}' is no day; days are {', '.join(DAYS)}, or a range like mon-fri")
        start = DAYS.index(first)
        length = (DAYS.index(last or first) - start) % len(DAYS)
        found |= {(start + step) % len(DAYS) for step in range(length + 1)}
    return frozenset(found)


@lru_cache(maxsize=4096)
def _spans_of(windows: tuple[Window, ...], day: int, zone: tzinfo) -> tuple[tuple[int, int], ...]:
    """From when to when (Unix ms) the windows that start on this day are. Kept: many devices ask for the same day."""
    weekday = (day - 1) % 7  # ordinal 1, 1 January of year 1, is a Monday
    spans = []
    for days, start_min, end_min in windows:
        if weekday in days:
            start = _first_ms(day, start_min, zone)
            end = _end_ms(day + (end_min <= start_min), end_min, zone)
            if start < end:
                spans.append((start, end))
    return tuple(spans)


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted spans, those that touch or overlap made one."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _local_day(ts_ms: int, zone: tzinfo) -> int:
    return datetime.fromtimestamp(ts_ms // 1000, UTC).astimezone(zone).toordinal()


def _first_ms(day: int, minute: int, zone: tzinfo) -> int:
    """When (Unix ms) the clock of that zone first shows this minute of this day, or a later one."""
    naive = _naive(day, minute)
    at_s = _shown_at_s(naive, zone, fold=0)
    return (_end_of_gap_s(naive, zone) if at_s is None else at_s) * 1000


def _end_ms(day: int, minute: int, zone: tzinfo) -> int:
    """When (Unix ms) the last minute is over that shows a time before this one."""
    last = _naive(day, minute - 1)
    at_s = _shown_at_s(last, zone, fold=1)
    return (_end_of_gap_s(last, zone) if at_s is None else at_s + 60) * 1000


def _naive(day: int, minute: int) -> datetime:
    return datetime.combine(date.fromordinal(day), datetime.min.time()) + timedelta(minutes=minute)


def _shown_at_s(naive: datetime, zone: tzinfo, *, fold: int) -> int | None:
    """When the clock shows this: the first (0) or second (1) time, Unix seconds; None: it never does."""
    at_s = int(naive.replace(tzinfo=zone, fold=fold).timestamp())
    return at_s if datetime.fromtimestamp(at_s, UTC).astimezone(zone).replace(tzinfo=None) == naive else None


def _end_of_gap_s(naive: datetime, zone: tzinfo) -> int:
    """The first instant after the gap in which `naive` lies: the clock was put forward over it. Unix seconds."""
    before = int(naive.replace(tzinfo=zone, fold=1).timestamp())  # by the offset that comes: still before the change
    after = int(naive.replace(tzinfo=zone, fold=0).timestamp())
    new_offset = datetime.fromtimestamp(after, UTC).astimezone(zone).utcoffset()
    while before + 1 < after:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, UTC).astimezone(zone).utcoffset() == new_offset:
            after = middle
        else:
            before = middle
    return after
