"""`/api/v1/alarm-quality`: the measures as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from core.faults import Severity
from storage.alarm_quality import AlarmQuality
from storage.records import address, open_records
from tests.api import seed

DAY = 86_400_000


@pytest.fixture
def home(tmp_path: Path) -> Iterator[seed.House]:
    with seed.house(tmp_path) as made, closing(open_records(address("", tmp_path))) as records:
        made.services = replace(made.services, alarm_quality=AlarmQuality(records))
        seed.register(made.services)
        yield made


def ask(web: httpx.Client, **query: str | int) -> httpx.Response:
    return web.get("/api/v1/alarm-quality", params=query)


def test_nothing_has_happened(web: httpx.Client) -> None:
    assert ask(web).json() == {
        "from": seed.NOW - 30 * DAY,
        "to": seed.NOW,
        "alarms": 0,
        "late": 0,
        "loads": [],
        "severities": {},
        "offenders": [],
        "chattering": [],
        "stale": [],
        "false_alarms_by_rule": [],
        "false_alarms_by_device": [],
    }


def test_two_faults_one_of_them_false(home: seed.House, web: httpx.Client) -> None:
    home.raise_fault()
    wrong = home.raise_fault(seed.STRANGER, group="door", severity=Severity.P2)
    home.walk(wrong, "false_alarm", note="x")
    found = ask(web, to=seed.NOW + 1, **{"from": seed.NOW}).json()
    load = {"alarms": 1, "average": 600_000.0, "peak": 1, "peak_start": seed.NOW, "flood_share": 0.0}
    assert found["loads"] == [{"site": "elsewhere"} | load, {"site": "fenghe"} | load]
    assert found["severities"] == {"P0": 1, "P2": 1}
    lift = {"rule": "rule-entrapment", "device": seed.LIFT, "part": ""}
    assert found["offenders"][1] == lift | {"alarms": 1, "share": 0.5}
    assert found["false_alarms_by_device"] == [{"name": seed.STRANGER, "closed": 1, "false_alarms": 1, "rate": 1.0}]
    assert ask(web, to=seed.NOW + 1, site="fenghe").json()["alarms"] == 1
    stale = ask(web, to=seed.NOW + 2 * DAY).json()["stale"]
    assert stale == [lift | {"incident": 1, "severity": "P0", "opened": seed.NOW, "closed": None}]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": seed.NOW, "to": seed.NOW}, "query.to"),
        ({"from": seed.NOW + 1}, "query.to"),
        ({"from": seed.NOW - 367 * DAY}, "query.to"),
        ({"from": "yesterday"}, "query.from"),
        ({"to": -1}, "query.to"),
    ],
)
def test_times_that_make_no_sense(web: httpx.Client, query: dict[str, str | int], field: str) -> None:
    answer = ask(web, **query)
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)
