"""The JSON API: every route, its filters, its pages and its errors."""

from __future__ import annotations

import base64
import sqlite3
from pathlib import Path

import httpx
import pytest

from api.series import DEFAULT_BUCKETS, default_step
from core.faults import Severity
from tests.api import seed

MINUTE = 60_000


def test_sites_count_devices_and_open_incidents(home: seed.House, web: httpx.Client) -> None:
    home.raise_fault()
    strange, fenghe = web.get("/api/v1/sites").json()["items"]
    assert (strange["id"], strange["registered"]) == ("elsewhere", False)
    assert fenghe["name"] == {"zh": "风荷苑", "en": "Fenghe Court"}
    assert fenghe["open_incidents"] == {"P0": 1}
    assert fenghe["kinds"] == [
        {"kind": "elevator", "devices": 2, "online": 1, "with_fault": 1},
        {"kind": "charger", "devices": 1, "online": 1, "with_fault": 0},
    ]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({}, [seed.STRANGER, seed.LIFT, "fenghe.lift-02", seed.PILE]),
        ({"site": "fenghe", "kind": "elevator"}, [seed.LIFT, "fenghe.lift-02"]),
        ({"state": "never"}, ["fenghe.lift-02"]),
        ({"state": "online", "kind": "charger"}, [seed.PILE]),
        ({"site": "nowhere"}, []),
    ],
)
def test_devices_filters(calm: httpx.Client, query: dict[str, str], ids: list[str]) -> None:
    assert [one["id"] for one in calm.get("/api/v1/devices", params=query).json()["items"]] == ids


def test_devices_pages(calm: httpx.Client) -> None:
    first = calm.get("/api/v1/devices", params={"limit": 3}).json()
    rest = calm.get("/api/v1/devices", params={"limit": 3, "after_id": first["next"]}).json()
    assert [one["id"] for one in first["items"] + rest["items"]] == [
        seed.STRANGER,
        seed.LIFT,
        "fenghe.lift-02",
        seed.PILE,
    ]
    assert rest["next"] is None


def test_a_device_goes_offline_by_its_will_and_by_silence(home: seed.House, web: httpx.Client) -> None:
    def state(device: str) -> str:
        return str(web.get(f"/api/v1/devices/{device}").json()["state"])

    assert state(seed.LIFT) == "online"
    home.now += 4 * MINUTE  # the rule for silent lifts says 180 s, the one for piles 540 s
    assert (state(seed.LIFT), state(seed.PILE)) == ("offline", "online")
    home.read(seed.PILE, kind="charger", online=False)
    assert state(seed.PILE) == "offline"


def test_device_with_values_units_ages_and_events(home: seed.House, web: httpx.Client) -> None:
    ticket = home.raise_fault()
    lift = web.get(f"/api/v1/devices/{seed.LIFT}").json()
    values = lift["parts"][""]["values"]
    assert values["motor_temp_c"] == {
        "value": 41.256,
        "unit": "°C",
        "ts": seed.NOW - 2_000,
        "age_ms": 1_960,  # since we received it: how far the device's clock is off does not matter
        "stale": False,
    }
    assert values["noise_db"]["stale"] is True
    assert values[seed.HOSTILE]["value"] == seed.HOSTILE
    assert lift["building"] == {"id": "fenghe.no-1", "name": {"zh": "1号楼", "en": "Building 1"}}
    assert lift["contractor"]["id"] == "east-lifts"
    assert (lift["statics"]["floors"], lift["registered"], lift["age_ms"]) == (6, True, 1_960)
    assert [one["id"] for one in lift["tickets"]] == [ticket]
    assert (lift["severity"], lift["incidents"][0]["group"]) == ("P0", "entrapment")
    assert {one["fault"]: one["name"] and one["name"]["zh"] for one in lift["events"]} == {
        "door_closing_fault": "关门故障",
        None: None,
    }


def test_ports_are_parts(calm: httpx.Client) -> None:
    parts = calm.get(f"/api/v1/devices/{seed.PILE}").json()["parts"]
    assert list(parts) == ["", "1", "2", "3"]
    assert parts["2"]["values"]["power_w"]["value"] == 240.0
    assert parts["2"]["values"]["power_w"]["unit"] == "W"


def test_an_unregistered_device_is_shown(calm: httpx.Client) -> None:
    stranger = calm.get(f"/api/v1/devices/{seed.STRANGER}").json()
    assert stranger["registered"] is False
    assert stranger["name"] == {"zh": "lift-99", "en": "lift-99"}


def test_series_of_the_last_hour(calm: httpx.Client) -> None:
    series = calm.get(f"/api/v1/devices/{seed.LIFT}/series", params={"field": "speed_mps"}).json()
    first = seed.NOW - 59 * MINUTE  # the one of exactly an hour ago is just outside
    assert (series["unit"], series["to"] - series["from"]) == ("m/s", 3_600_000)
    assert len(series["buckets"]) == 58
    assert series["buckets"][0] == {
        "start": first - first % series["step"],
        "points": 1,
        "last": 0.5,
        "mean": 0.5,
        "min": 0.5,
        "max": 0.5,
    }


def test_series_of_a_port_with_a_step(calm: httpx.Client) -> None:
    query: dict[str, str | int] = {
        "field": "state",
        "part": "1",
        "from": seed.NOW - 60_000,
        "to": seed.NOW,
        "step": 30_000,
    }
    (bucket,) = calm.get(f"/api/v1/devices/{seed.PILE}/series", params=query).json()["buckets"]
    assert (bucket["last"], bucket["mean"], bucket["start"] % 30_000) == ("charging", None, 0)


@pytest.mark.parametrize("span_ms", [1, 60_000, 3_600_000, 86_400_000, 400 * 86_400_000])
def test_default_step_keeps_the_number_of_buckets(span_ms: int) -> None:
    step = default_step(span_ms)
    # Buckets start at whole multiples of the step, so a window may touch one more than fit into it.
    assert -(-span_ms // step) + 1 <= DEFAULT_BUCKETS


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "query.field"),
        ({"field": "x", "step": "0"}, "query.step"),
        ({"field": "x", "from": "2", "to": "1"}, "query.from"),
        ({"field": "x", "from": "0", "to": str(seed.NOW)}, "query.from"),
        ({"field": "x", "step": "1"}, "query.step"),
        ({"field": "x" * 65}, "query.field"),
    ],
)
def test_series_limits(calm: httpx.Client, query: dict[str, str], field: str) -> None:
    answer = calm.get(f"/api/v1/devices/{seed.LIFT}/series", params=query)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid"
    assert answer.json()["error"]["field"] == field


def test_tickets_open_first_then_closed_by_pages(home: seed.House, web: httpx.Client) -> None:
    closed = [home.raise_fault(group=f"g{number}") for number in range(3)]
    for ticket in closed:
        home.walk(ticket, "false_alarm", note="test")
    service = home.raise_fault(group="door", severity=Severity.P2)
    life = home.raise_fault(group="entrapment")
    first = web.get("/api/v1/tickets", params={"limit": 2}).json()
    assert [one["id"] for one in first["items"]] == [life, service, closed[2], closed[1]]
    rest = web.get("/api/v1/tickets", params={"limit": 2, "before_id": first["next"]}).json()
    assert [one["id"] for one in rest["items"]] == [closed[0]]
    assert rest["next"] is None


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"state": "open"}, 2),
        ({"state": "dispatched"}, 1),
        ({"state": "accepted"}, 1),
        ({"state": "closed"}, 1),
        ({"site": "elsewhere"}, 1),
        ({"device": seed.LIFT}, 2),
        ({"device": seed.LIFT, "state": "closed"}, 0),
    ],
)
def test_tickets_filters(home: seed.House, web: httpx.Client, query: dict[str, str], count: int) -> None:
    home.walk(home.raise_fault(), "accept")
    home.raise_fault(group="door", severity=Severity.P2)
    home.walk(home.raise_fault(seed.STRANGER, group="door"), "false_alarm", note="test")
    assert len(web.get("/api/v1/tickets", params=query).json()["items"]) == count


def test_ticket_with_history_evidence_and_actions(home: seed.House, web: httpx.Client) -> None:
    ticket = web.get(f"/api/v1/tickets/{home.raise_fault()}").json()
    assert (ticket["state"], ticket["step"], ticket["rule"]) == ("dispatched", 3, "rule-entrapment")
    assert [line["action"] for line in ticket["history"]] == ["report", "file", "dispatch"]
    assert ticket["evidence"]["when"] == "not door_zone"
    assert ticket["evidence_values"] == [
        {
            "field": "door_zone",
            "name": {"zh": "在开锁区", "en": "in door zone"},
            "value": False,
            "unit": "",
            "ts": seed.NOW - 20_000,
        }
    ]
    assert ticket["actions"] == [
        {"action": "accept", "target": "accepted", "requires": []},
        {"action": "false_alarm", "target": "closed", "requires": ["note", "clear"]},
    ]


def test_incidents(home: seed.House, web: httpx.Client) -> None:
    home.walk(home.raise_fault(), "false_alarm", note="test", clear=True)
    home.raise_fault(group="door", severity=Severity.P2)
    every = web.get("/api/v1/incidents", params={"device": seed.LIFT}).json()["items"]
    assert [(one["group"], one["outcome"]) for one in every] == [("door", None), ("entrapment", "false_alarm")]
    page = web.get("/api/v1/incidents", params={"limit": 1}).json()
    assert page["next"] == every[0]["id"]
    (still,) = web.get("/api/v1/incidents", params={"state": "open", "site": "fenghe"}).json()["items"]
    assert still["group"] == "door"


def test_quarantine_is_text_and_exact_bytes(calm: httpx.Client) -> None:
    binary, text = calm.get("/api/v1/quarantine").json()["items"]
    assert text["text"] == '{"floor": "' + seed.HOSTILE + '"}'
    assert binary["text"].startswith("\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}x")
    assert base64.b64decode(binary["base64"]) == b"\xff\xfe" + b"x" * 4_094
    assert (binary["payload_bytes"], binary["cut"], text["cut"]) == (5_002, True, False)


def test_stats_balance(home: seed.House, web: httpx.Client) -> None:
    home.stats = home.stats._replace(received=20, carried=5, spooled=6, in_flight=4)
    home.raise_fault()
    stats = web.get("/api/v1/stats").json()
    assert stats["balance"] == 20 + 5 - 7 - 1 - 2 - 6 - 4
    assert (stats["open_tickets"], stats["quarantine_rows"], stats["outbox_waiting"]) == (1, 2, 1)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/v1/nothing", "not_found"),
        ("/api/v1/devices/fenghe.nothing", "not_found"),
        ("/api/v1/devices/fenghe.nothing/series?field=floor", "not_found"),
        ("/api/v1/tickets/99", "not_found"),
        ("/nothing", "not_found"),
        ("/static/nothing.css", "not_found"),
    ],
)
def test_404_has_the_one_shape(calm: httpx.Client, path: str, code: str) -> None:
    answer = calm.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == code


@pytest.mark.parametrize(
    "path", ["/api/v1/tickets/abc", "/api/v1/tickets?state=new", "/api/v1/tickets?limit=0", "/api/v1/devices?state=x"]
)
def test_bad_parameters_name_the_field(calm: httpx.Client, path: str) -> None:
    answer = calm.get(path)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"]


def test_a_database_that_does_not_answer_is_503(web: httpx.Client, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "records.sqlite") as connection:
        connection.execute("DROP TABLE quarantine")
    answer = web.get("/api/v1/quarantine")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"]["code"] == "store_unavailable"
    page = web.get("/quarantine", headers={"accept": "text/html"})
    assert page.status_code == 503
    assert "数据库暂时没有响应" in page.text
    assert "tizhuang_up 0.0" in web.get("/metrics").text


def test_openapi_describes_every_route(calm: httpx.Client) -> None:
    described = calm.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/v1/sites",
        "/api/v1/devices",
        "/api/v1/devices/{device_id}",
        "/api/v1/devices/{device_id}/series",
        "/api/v1/incidents",
        "/api/v1/tickets",
        "/api/v1/tickets/{ticket_id}",
        "/api/v1/tickets/{ticket_id}/actions/{action}",
        "/api/v1/silences",
        "/api/v1/silences/{silence_id}",
        "/api/v1/alarm-quality",
        "/api/v1/rules",
        "/api/v1/quarantine",
        "/api/v1/stats",
        "/api/v1/live",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    for path in described["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["description"]
