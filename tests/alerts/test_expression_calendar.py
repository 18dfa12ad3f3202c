"""The clock and the calendar on the wall, across days on which the clock is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.expression import compile_condition
from alerts.walltime import FACES, between, next_change, shown
from tests.alerts.scopes import FAULTS, FIELDS, World

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
# Forward and back by an hour; by half an hour; never; on Ramadan; at odd offsets; a day that never was (Apia, 2011).
ZONES = [
    ZoneInfo(name)
    for name in (
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Shanghai",
        "Africa/Casablanca",
        "Asia/Kathmandu",
        "Pacific/Apia",
        "America/St_Johns",
    )
]
JUMPS = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 2, 15, 2, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
]
instants = st.builds(
    lambda jump, ms: int(jump.timestamp() * 1_000) + ms,
    st.sampled_from(JUMPS),
    st.one_of(st.integers(-4 * HOUR_MS, 4 * HOUR_MS), st.integers(-40 * 24 * HOUR_MS, 40 * 24 * HOUR_MS)),
)


def ms(text: str, zone: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1_000)


@pytest.mark.parametrize(
    ("text", "when", "zone", "expected"),
    [
        ("hour() == 23 and minute() == 59", "2026-06-01T23:59:59.999", "Asia/Shanghai", True),
        ("hour() == 0", "2026-06-02T00:00", "Asia/Shanghai", True),
        ("weekday() == 1", "2026-06-01T12:00", "Asia/Shanghai", True),
        ("weekday() == 7", "2026-06-07T23:59", "Asia/Shanghai", True),
        ("month() == 6 and day() == 7", "2026-06-07T23:59", "Asia/Shanghai", True),
        ('between("22:00", "06:00")', "2026-06-07T22:00", "Europe/Berlin", True),
        ('between("22:00", "06:00")', "2026-06-07T05:59:59.999", "Europe/Berlin", True),
        ('between("22:00", "06:00")', "2026-06-07T06:00", "Europe/Berlin", False),
        ('between("22:00", "06:00")', "2026-06-07T21:59:59.999", "Europe/Berlin", False),
        ('between("9:00", "17:30")', "2026-06-07T17:29", "Europe/Berlin", True),
        ('between("9:00", "17:30")', "2026-06-07T17:30", "Europe/Berlin", False),
        ('between("18:00", "24:00")', "2026-06-07T23:59:59.999", "Europe/Berlin", True),
        ('between("18:00", "24:00")', "2026-06-07T00:00", "Europe/Berlin", False),
        ('between("02:00", "03:00")', "2026-10-25T02:30", "Europe/Berlin", True),
    ],
)
def test_what_the_wall_shows(text: str, when: str, zone: str, expected: bool):
    world = World({}, now=ms(when, zone), zone=ZoneInfo(zone))
    assert compile_condition(text, FIELDS, FAULTS).evaluate(world) is expected


@pytest.mark.parametrize(
    ("text", "when", "zone", "next_edge"),
    [
        ("hour() == 3", "2026-06-01T12:34:56", "Asia/Shanghai", "2026-06-01T13:00"),
        ("minute() == 3", "2026-06-01T12:34:56", "Asia/Shanghai", "2026-06-01T12:35"),
        ("weekday() == 3", "2026-06-01T12:34:56", "Asia/Shanghai", "2026-06-02T00:00"),
        ("month() == 3", "2026-12-31T12:34:56", "Asia/Shanghai", "2027-01-01T00:00"),
        ("month() == 3", "2028-02-01T00:00", "Asia/Shanghai", "2028-03-01T00:00"),
        ('between("22:00", "06:00")', "2026-06-01T12:00", "Asia/Shanghai", "2026-06-01T22:00"),
        ('between("22:00", "06:00")', "2026-06-01T22:00", "Asia/Shanghai", "2026-06-02T06:00"),
        # At 02:00 the clock goes on to 03:00: hour 2 does not exist, and a time within it begins at 03:00.
        ("hour() == 3", "2026-03-29T01:30", "Europe/Berlin", "2026-03-29T03:00"),
        ('between("02:30", "05:00")', "2026-03-29T01:30", "Europe/Berlin", "2026-03-29T03:00"),
        # At 03:00 it goes back to 02:00: hour 2 lasts two hours, 02:30 to 02:45 comes twice.
        ("hour() == 3", "2026-10-25T02:30", "Europe/Berlin", "2026-10-25T03:00"),
        ('between("02:30", "02:45")', "2026-10-25T02:30", "Europe/Berlin", "2026-10-25T02:45"),
    ],
)
def test_when_the_wall_next_shows_something_else(text: str, when: str, zone: str, next_edge: str):
    condition = compile_condition(text, FIELDS, FAULTS)
    assert condition.wakes is not None
    assert condition.wakes(World({}, now=ms(when, zone), zone=ZoneInfo(zone))) == ms(next_edge, zone)


@given(
    st.one_of(
        st.sampled_from(sorted(FACES)).map(FACES.__getitem__),
        st.tuples(st.integers(0, 1_439), st.integers(1, 1_440))
        .filter(lambda two: two[0] != two[1] % 1_440)
        .map(lambda two: between(*two)),
    ),
    instants,
    st.sampled_from(ZONES),
    st.lists(st.floats(0, 1), min_size=10, max_size=10),
)
def test_the_wall_shows_the_same_until_then(face, now: int, zone: ZoneInfo, shares: list[float]):
    before, edge = shown(face, now, zone), next_change(face, now, zone)
    assert edge is not None
    assert edge > now
    grid = [now + int((edge - 1 - now) * share) for share in (*shares, 1)]
    quarters = range(now - now % (15 * MINUTE_MS) + 15 * MINUTE_MS, edge, 15 * MINUTE_MS)
    assert {shown(face, instant, zone) for instant in (*grid, *quarters)} <= {before}
    assert shown(face, edge, zone) != before


@given(instants, st.sampled_from(ZONES), st.integers(0, 1_439), st.integers(0, 1_439))
def test_the_wall_shows_what_datetime_shows(now: int, zone: ZoneInfo, start: int, end: int):
    wall = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=now)).astimezone(zone)
    assert [shown(FACES[name], now, zone) for name in ("minute", "hour", "day", "month", "weekday")] == [
        wall.minute,
        wall.hour,
        wall.day,
        wall.month,
        wall.isoweekday(),
    ]
    minute = wall.hour * 60 + wall.minute
    covered = {one % 1_440 for one in range(start, end if end > start else end + 1_440)}
    assert start == end or shown(between(start, end), now, zone) == int(minute in covered)


@pytest.mark.parametrize("now", [10**20, -(10**20), 253_402_300_799_999])
def test_beyond_the_calendar_nothing_is_known(now: int):
    assert next_change(FACES["month"], now, ZoneInfo("Asia/Shanghai")) is None
    assert shown(FACES["month"], now, ZoneInfo("Asia/Shanghai")) is None
