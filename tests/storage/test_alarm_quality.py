"""The measures of alarm quality against numbers counted by hand, and what the records give them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.alarm_quality import (
    CHATTER_MS,
    FLOOD,
    OFFENDERS,
    PERIOD_MS,
    STALE_MS,
    Alarm,
    AlarmQuality,
    Course,
    Load,
    Quality,
    Source,
    measure,
)
from storage.incidents import Incidents
from storage.records import Records
from storage.tickets import Tickets
from tests.storage.changes import change

T = 1_795_300_000_000
DAY = 86_400_000
DOOR, LEVEL = Source("door", "a.lift", ""), Source("level", "a.lift", "")
ELSE = Source("door", "b.lift", "")


def alarm(after_ms: int, source: Source = DOOR, **more: Any) -> Alarm:
    at = T + after_ms
    return Alarm(at, more.pop("device_ms", at), source.device_id[0], source, more.pop("severity", "P2"), **more)


def course(number: int, opened: int, closed: int | None, outcome: str | None = None, source: Source = DOOR) -> Course:
    return Course(
        number, source.device_id[0], source, "P2", T + opened, None if closed is None else T + closed, outcome
    )


def over(alarms: list[Alarm], courses: list[Course] | None = None, *, to: int = DAY, **more: Any) -> Quality:
    return measure(alarms, courses or [], start=T, end=T + to, **more)


# --- load ------------------------------------------------------------------------------------------------------------

LOADS: list[tuple[str, list[Alarm], int, list[Load]]] = [
    ("nothing", [], DAY, []),
    ("one an hour", [alarm(hour * 3_600_000) for hour in range(24)], DAY, [Load("a", 24, 24 / 144, 1, T, 0.0)]),
    (
        "one moment makes two periods",
        [alarm(PERIOD_MS - 1), alarm(PERIOD_MS)],
        2 * PERIOD_MS,
        [Load("a", 2, 1.0, 1, T, 0.0)],
    ),
    (
        "ten are no flood",
        [alarm(PERIOD_MS + number) for number in range(FLOOD)],
        4 * PERIOD_MS,
        [Load("a", 10, 2.5, 10, T + PERIOD_MS, 0.0)],
    ),
    (
        "eleven are",
        [alarm(PERIOD_MS + number) for number in range(FLOOD + 1)],
        4 * PERIOD_MS,
        [Load("a", 11, 2.75, 11, T + PERIOD_MS, 0.25)],
    ),
    (
        "a last period that is cut short",
        [alarm(PERIOD_MS)],
        PERIOD_MS + 1,
        [Load("a", 1, 600_000 / 600_001, 1, T + PERIOD_MS, 0.0)],
    ),
    ("outside of the time", [alarm(-1), alarm(DAY)], DAY, []),
    ("late ones page nobody", [alarm(0, late=True), alarm(1)], PERIOD_MS, [Load("a", 1, 1.0, 1, T, 0.0)]),
    (
        "sites are apart",
        [alarm(0), alarm(1), alarm(0, ELSE)],
        PERIOD_MS,
        [Load("a", 2, 2.0, 2, T, 0.0), Load("b", 1, 1.0, 1, T, 0.0)],
    ),
]


@pytest.mark.parametrize(("alarms", "to", "loads"), [case[1:] for case in LOADS], ids=[case[0] for case in LOADS])
def test_load(alarms, to, loads):
    assert over(alarms, to=to).loads == loads


def test_a_site_without_an_alarm_is_a_good_one():
    assert over([], sites=["a"]).loads == [Load("a", 0, 0.0, 0, None, 0.0)]


@given(st.lists(st.integers(-DAY, 2 * DAY), max_size=60), st.integers(1, 2 * DAY))
def test_every_alarm_of_the_time_is_in_one_period(times: list[int], to: int):
    found = over([alarm(one) for one in times], to=to)
    assert found.alarms == sum(load.alarms for load in found.loads) == sum(0 <= one < to for one in times)
    for load in found.loads:
        assert 0 <= load.flood_share <= 1
        assert load.peak <= load.alarms


# --- sources ---------------------------------------------------------------------------------------------------------


def test_the_worst_ten_with_their_share():
    sources = [Source(f"r{number:02}", "a.lift", "") for number in range(12)]
    alarms = [alarm(times, source) for number, source in enumerate(sources) for times in range(12 - number)]
    found = over(alarms)
    assert [one.source for one in found.offenders] == sources[:OFFENDERS]
    assert (found.offenders[0].alarms, found.offenders[0].share) == (12, 12 / 78)


def test_severities():
    assert over([alarm(0, severity="P3"), alarm(1, severity="P0"), alarm(2, severity="P3")]).severities == {
        "P0": 1,
        "P3": 2,
    }


CHATTERS: list[tuple[str, list[Alarm], list[tuple[Source, int, int]]]] = [
    ("two are none", [alarm(0), alarm(1)], []),
    ("three within a minute", [alarm(0), alarm(1), alarm(CHATTER_MS)], [(DOOR, 3, 0)]),
    ("a moment too slow", [alarm(0), alarm(1), alarm(CHATTER_MS + 1)], []),
    ("by the device's clock", [alarm(number * 3_600_000, device_ms=T + number) for number in range(3)], [(DOOR, 3, 0)]),
    ("rules and devices are apart", [alarm(0), alarm(1, LEVEL), alarm(2, ELSE)], []),
    ("the worst minute counts", [alarm(at) for at in (0, 1, 2, 100_000, 100_001, 100_002, 100_003)], [(DOOR, 4, 0)]),
    ("what the engine found unstable", [alarm(0, LEVEL, unstable=True)], [(LEVEL, 0, 1)]),
]


@pytest.mark.parametrize(("alarms", "found"), [case[1:] for case in CHATTERS], ids=[case[0] for case in CHATTERS])
def test_chattering(alarms, found):
    assert [tuple(one) for one in over(alarms).chattering] == found


def test_unstable_is_no_alarm():
    assert over([alarm(0, unstable=True)]).alarms == 0


@pytest.mark.parametrize(
    ("opened", "closed", "stale"),
    [
        (0, STALE_MS, False),
        (0, STALE_MS + 1, True),
        (0, None, True),
        (2 * DAY, None, False),
        (2 * DAY - 1, None, True),
        (-DAY, 1, True),
        (3 * DAY, None, False),
    ],
)
def test_stale(opened, closed, stale):
    """Open for more than a day, up to the end of the time: what happened after it is not known then."""
    found = over([], [course(7, opened, closed)], to=3 * DAY)
    assert [one.id for one in found.stale] == ([7] if stale else [])


def test_false_alarms_by_rule_and_device():
    closed = [
        course(1, 0, 10, "false_alarm"),
        course(2, 0, 10, "fixed"),
        course(3, 0, 10, "recovered", LEVEL),
        course(4, 0, 10, "false_alarm", ELSE),
        course(5, 0, None),
        course(6, 0, DAY, "false_alarm"),
    ]
    found = over([], closed)
    assert [tuple(one) for one in found.by_rule] == [("door", 3, 2, 2 / 3)]
    assert [tuple(one) for one in found.by_device] == [("b.lift", 1, 1, 1.0), ("a.lift", 3, 1, 1 / 3)]


# --- the records -----------------------------------------------------------------------------------------------------


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


def test_the_records_give_what_was_raised(records: Records):
    incidents, tickets = Incidents(records), Tickets(records)
    incidents.apply([change("raise", T, rule="a", severity="P1", close="telemetry")], now=T)
    incidents.apply([change("raise", T + 1, rule="b")], now=T + 1)
    incidents.apply([change("clear", T + 2, rule="b", close="telemetry")], now=T + 2)
    incidents.apply([change("raise", T + 3, rule="b", reopen_ms=60_000, reason="unstable")], now=T + 3)
    incidents.apply([change("raise", T, device="here.*", group="power", rule="power", late=True)], now=T + 4)
    incidents.apply([change("raise", T + 5, device="here.pile", part="2")], now=T + 5)
    incidents.apply([change("raise", T + PERIOD_MS, group="next", rule="next")], now=T + PERIOD_MS)
    tickets.act(3, "false_alarm", actor="li", said={"note": "x"}, now=T + 6)
    quality = AlarmQuality(records)
    found = quality.over(start=T, end=T + PERIOD_MS)
    assert (found.alarms, found.late) == (5, 1)
    assert found.loads == [Load("here", 4, 4.0, 4, T, 0.0)]
    assert found.severities == {"P1": 5}
    assert [(one.source, one.alarms) for one in found.offenders] == [
        (Source("b", "here.lift", ""), 2),
        (Source("a", "here.lift", ""), 1),
        (Source("power", "here.*", ""), 1),
        (Source("rule", "here.pile", "2"), 1),
    ]
    assert [tuple(one) for one in found.chattering] == [(Source("b", "here.lift", ""), 0, 1)]
    assert [tuple(one) for one in found.by_device] == [("here.pile", 1, 1, 1.0)]
    assert quality.over(start=T, end=T + PERIOD_MS, site_id="here") == found
    assert quality.over(start=T, end=T + PERIOD_MS, site_id="there").loads == [Load("there", 0, 0.0, 0, None, 0.0)]
    assert len(quality.over(start=T, end=T + 3 * DAY).stale) == 3
