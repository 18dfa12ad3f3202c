"""Schedules against an obvious reference that walks through the minutes, also where clocks are put forward or back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.schedule import DAYS, Schedule, Window, parse_schedule

BERLIN, SHANGHAI = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Shanghai")
ALL = frozenset(range(7))
MINUTE_MS = 60_000


def ms(text: str, zone: tzinfo = UTC, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp() * 1000)


@pytest.mark.parametrize(
    ("data", "windows"),
    [
        ("22:00-06:00", [(ALL, 1320, 360)]),
        (" 08:00 - 18:00 ", [(ALL, 480, 1080)]),
        ("00:00-24:00", [(ALL, 0, 1440)]),
        ("22:00-00:00", [(ALL, 1320, 0)]),
        ({"days": "mon-fri", "hours": "08:00-18:00"}, [({0, 1, 2, 3, 4}, 480, 1080)]),
        ({"days": "Sat, sun"}, [({5, 6}, 0, 1440)]),
        ({"days": "fri-mon", "hours": "08:00-09:00"}, [({4, 5, 6, 0}, 480, 540)]),
        ({"days": ["mon", "wed-fri"]}, [({0, 2, 3, 4}, 0, 1440)]),
        ({"hours": "01:00-02:00"}, [(ALL, 60, 120)]),
        (["22:00-06:00", {"days": "sun"}], [(ALL, 1320, 360), ({6}, 0, 1440)]),
    ],
)
def test_what_can_be_written(data: Any, windows: Any):
    assert parse_schedule(data).windows == tuple(Window(frozenset(days), *hours) for days, *hours in windows)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("22-6", "hours are a start and an end"),
        ("25:00-06:00", "hours are a start and an end"),
        ("24:00-06:00", "hours are a start and an end"),
        ("08:00-08:00", "a full day is 00:00-24:00"),
        (1320, "a schedule is hours like"),
        (None, "a schedule is hours like"),
        ([], "an empty list"),
        ({}, "a schedule is hours like"),
        ([["22:00-06:00"]], "a schedule is hours like"),
        ({"day": "mon"}, "unknown key 'day'"),
        ({"days": "monday"}, "'monday' is no day; days are mon, tue"),
        ({"days": "mon-"}, "'mon-' is no day"),
        ({"days": ""}, "'' is no day"),
        ({"days": []}, "days are like mon-fri"),
        ({"days": 1}, "days are like mon-fri"),
        ({"days": "mon", "hours": 800}, "hours are a start and an end"),
    ],
)
def test_what_cannot(data: Any, told: str):
    with pytest.raises(ValueError, match=re.escape(told)):
        parse_schedule(data)


NIGHT, GAP, FOLD = parse_schedule("22:00-06:00"), parse_schedule("02:30-04:00"), parse_schedule("01:00-02:30")


@pytest.mark.parametrize(
    ("schedule", "zone", "at", "fold", "covered"),
    [
        (NIGHT, SHANGHAI, "2026-11-22T21:59:59.999", 0, False),
        (NIGHT, SHANGHAI, "2026-11-22T22:00", 0, True),
        (NIGHT, SHANGHAI, "2026-11-23T05:59:59.999", 0, True),
        (NIGHT, SHANGHAI, "2026-11-23T06:00", 0, False),
        # 29 March 2026: 02:00 is followed by 03:00. A start at 02:30 is the first instant after the gap.
        (GAP, BERLIN, "2026-03-29T01:59:59.999", 0, False),
        (GAP, BERLIN, "2026-03-29T03:00", 0, True),
        (GAP, BERLIN, "2026-03-29T04:00", 0, False),
        # An end in the gap is that instant too.
        (FOLD, BERLIN, "2026-03-29T01:59:59.999", 0, True),
        (FOLD, BERLIN, "2026-03-29T03:00", 0, False),
        # A window in the gap is left out.
        (parse_schedule("02:10-02:50"), BERLIN, "2026-03-29T03:00", 0, False),
        # 25 October 2026: 02:00 to 03:00 is there twice. It starts at the first, it ends at the second.
        (GAP, BERLIN, "2026-10-25T02:29:59", 0, False),
        (GAP, BERLIN, "2026-10-25T02:30", 0, True),
        (GAP, BERLIN, "2026-10-25T02:10", 1, True),
        (FOLD, BERLIN, "2026-10-25T02:40", 0, True),
        (FOLD, BERLIN, "2026-10-25T02:29:59", 1, True),
        (FOLD, BERLIN, "2026-10-25T02:30", 1, False),
        (parse_schedule("01:00-02:00"), BERLIN, "2026-10-25T02:00", 0, False),
        (parse_schedule("01:00-03:00"), BERLIN, "2026-10-25T02:59:59", 1, True),
        # Friday's night ends on Saturday.
        (parse_schedule({"days": "fri", "hours": "22:00-06:00"}), SHANGHAI, "2026-11-21T05:00", 0, True),
        (parse_schedule({"days": "fri", "hours": "22:00-06:00"}), SHANGHAI, "2026-11-20T05:00", 0, False),
    ],
)
def test_when_it_counts(schedule: Schedule, zone: tzinfo, at: str, fold: int, covered: bool):
    assert schedule.covers(ms(at, zone, fold), zone) is covered


@pytest.mark.parametrize(
    ("schedule", "zone", "at", "edge"),
    [
        (NIGHT, SHANGHAI, "2026-11-22T21:00", "2026-11-22T22:00"),
        (NIGHT, SHANGHAI, "2026-11-22T22:00", "2026-11-23T06:00"),
        (parse_schedule({"days": "mon", "hours": "08:00-09:00"}), SHANGHAI, "2026-11-23T09:00", "2026-11-30T08:00"),
        (parse_schedule(["08:00-12:00", "12:00-18:00"]), SHANGHAI, "2026-11-23T08:00", "2026-11-23T18:00"),
        (parse_schedule({"days": "mon-sat"}), SHANGHAI, "2026-11-23T08:00", "2026-11-29T00:00"),
        (parse_schedule("00:00-24:00"), SHANGHAI, "2026-11-22T21:00", None),
        (parse_schedule(["20:00-08:00", "08:00-20:00"]), BERLIN, "2026-03-28T21:00", None),
        (
            parse_schedule({"days": "sun", "hours": "02:10-02:50"}),
            BERLIN,
            "2026-03-22T12:00",
            "2026-04-05T02:10",  # not on the 29th, when there is no such time
        ),
    ],
)
def test_the_next_edge(schedule: Schedule, zone: tzinfo, at: str, edge: str | None):
    assert schedule.next_edge(ms(at, zone), zone) == (None if edge is None else ms(edge, zone))


# --- against a reference ---------------------------------------------------------------------------------------------

ZONES = {
    "berlin, forward": (BERLIN, "2026-03-28T12:00"),
    "berlin, back": (BERLIN, "2026-10-24T12:00"),
    "new york, forward": (ZoneInfo("America/New_York"), "2026-03-07T18:00"),
    "havana, forward at midnight": (ZoneInfo("America/Havana"), "2026-03-07T18:00"),
    "havana, back at midnight": (ZoneInfo("America/Havana"), "2026-10-31T18:00"),
    "st john's, back at a minute past midnight": (ZoneInfo("America/St_Johns"), "2010-11-06T12:00"),
    "lord howe, half an hour": (ZoneInfo("Australia/Lord_Howe"), "2026-04-04T06:00"),
    "shanghai": (SHANGHAI, "2026-11-21T00:00"),
    "fixed": (timezone(timedelta(hours=5, minutes=45)), "2026-11-21T00:00"),
}
SPAN_MIN = 30 * 60


@cache
def wall(zone: tzinfo, start_ms: int) -> list[tuple[int, datetime]]:
    """Every minute from two days before to two days after a span, and what the clock shows."""
    first, last = -2 * 1440, SPAN_MIN + 2 * 1440
    instants = [start_ms + minute * MINUTE_MS for minute in range(first, last)]
    return [(at, datetime.fromtimestamp(at / 1000, UTC).astimezone(zone).replace(tzinfo=None)) for at in instants]


def reference(schedule: Schedule, zone: tzinfo, start_ms: int) -> set[int]:
    """The minutes that are covered: from the first that shows a day's start, or more, to the last before its end."""
    clock = wall(zone, start_ms)
    covered: set[int] = set()
    for day in sorted({shown.date() for _, shown in clock})[1:-1]:
        for days, start_min, end_min in schedule.windows:
            if day.weekday() not in days:
                continue
            midnight = datetime.combine(day, datetime.min.time())
            opens = midnight + timedelta(minutes=start_min)
            closes = midnight + timedelta(minutes=end_min, days=end_min <= start_min)
            from_ms = min((at for at, shown in clock if shown >= opens), default=None)
            to_ms = max((at for at, shown in clock if shown < closes), default=None)
            if from_ms is not None and to_ms is not None:
                covered |= set(range(from_ms, to_ms + 1, MINUTE_MS))
    return covered


minutes = st.one_of(st.integers(0, 1439), st.integers(0, 3 * 60))
windows = st.tuples(st.frozensets(st.integers(0, 6), min_size=1), minutes, st.one_of(minutes, st.just(1440))).filter(
    lambda window: window[1] != window[2]
)
schedules = st.lists(windows, min_size=1, max_size=3).map(lambda made: Schedule(tuple(Window(*one) for one in made)))


@pytest.mark.parametrize("zone_name", ZONES)
@settings(max_examples=40)
@given(schedule=schedules)
def test_it_covers_what_the_reference_covers_and_changes_at_edges_only(zone_name: str, schedule: Schedule):
    zone, start = ZONES[zone_name]
    start_ms = ms(start)
    expected = reference(schedule, zone, start_ms)
    edge = schedule.next_edge(start_ms - 1, zone)
    before = schedule.covers(start_ms - 1, zone)
    for at in range(start_ms, start_ms + SPAN_MIN * MINUTE_MS, MINUTE_MS):
        covered = schedule.covers(at, zone)
        assert covered is (at in expected), datetime.fromtimestamp(at / 1000, UTC)
        assert (covered != before) is (edge == at)
        if edge == at:
            edge = schedule.next_edge(at, zone)
        before = covered


@given(days=st.lists(st.sampled_from(DAYS), min_size=1), start=st.integers(0, 1439), length=st.integers(1, 1439))
def test_what_is_written_is_what_counts(days: list[str], start: int, length: int):
    end = (start + length) % 1440
    hours = f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"
    found = parse_schedule({"days": ",".join(days), "hours": hours})
    assert found == parse_schedule({"days": days, "hours": hours})
    assert found.windows == (Window(frozenset(map(DAYS.index, days)), start, end),)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_nonsense_is_a_value_error_or_a_schedule(data: Any):
    try:
        found = parse_schedule(data)
    except ValueError:
        return
    assert found.windows
