"""Every bad message of the case files, through a real broker: parked with its reason, and the next one is there."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests import servers
from tests.acceptance.conftest import Api, Recording, now_ms, serving
from tests.payload_cases import Case, load

GOOD_DEVICE = "good-place.lift-01"
GOOD = "tizhuang/v1/good-place/elevator/lift-01/telemetry"
REGISTER = {
    "sites": [{"id": "good-place", "zh": "好地方", "en": "Good Place"}],
    "devices": [{"site": "good-place", "id": "lift-01", "kind": "elevator", "zh": "一号梯", "en": "Lift 1"}],
}


def publishable(case: Case) -> bool:
    """Our filter asks for `tizhuang/v1` with six levels and more; another test knows what else it lets through."""
    return case.topic.startswith("tizhuang/v1/") and case.topic.count("/") >= 5


def register(data: Path) -> None:
    """The good device, as an operator writes it into the register."""
    data.mkdir()
    entries = data.parent / "register.yaml"
    entries.write_text(yaml.safe_dump(REGISTER, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "tizhuang.py", "register", str(entries), "--data", str(data)]
    subprocess.run(command, cwd=servers.ROOT, check=True, capture_output=True, timeout=30)


def balanced(counts: dict[str, Any]) -> bool:
    ends = counts["stored"] + counts["duplicate"] + counts["quarantined"]
    return bool(counts["received"] == ends and counts["balance"] == 0)


def points(api: Api, device: str, field: str, start: int, end: int, step: int = 1) -> list[tuple[int, Any]]:
    """Every point of a field: time and value. Times are whole multiples of `step`."""
    found = api.get(f"/api/v1/devices/{device}/series", **{"field": field, "from": start, "to": end, "step": step})
    assert all(bucket["points"] == 1 for bucket in found["buckets"])
    return [(bucket["start"], bucket["last"]) for bucket in found["buckets"]]


def test_every_case_through_a_real_broker(mosquitto: servers.Mosquitto, data: Path) -> None:
    register(data)
    cases = [case for case in load(now_ms()) if publishable(case)]
    bad = [case for case in cases if case.rejected]
    assert len(bad) > 60
    start = now_ms() - 1_000
    with serving(mosquitto, data) as (_, api):
        for number, case in enumerate(cases):
            mosquitto.publish(case.topic, case.payload)
            mosquitto.publish(GOOD, json.dumps({"ts": start + number, "seq": number, "motor_temp_c": number / 2}))
        counts = api.wait_until_settled(2 * len(cases))

        assert counts["received"] == 2 * len(cases)
        assert balanced(counts)
        assert counts["acked"] == counts["received"]
        same = len(cases) - len({(case.topic, case.payload) for case in cases})
        assert (counts["quarantined"], counts["duplicate"]) == (len(bad), same)

        # The good ones between the bad ones are all there, and nothing else is.
        sent = [(start + number, number / 2) for number in range(len(cases))]
        assert points(api, GOOD_DEVICE, "motor_temp_c", start, start + len(cases)) == sent
        good = api.get(f"/api/v1/devices/{GOOD_DEVICE}")
        assert (good["registered"], good["state"]) == (True, "online")

        # Quarantine has the bad ones, each with its reason, byte for byte, and nothing else.
        parked = {(row["topic"], row["payload_bytes"], row["base64"]): row for row in quarantine(api)}
        wanted = {(c.topic, len(c.payload), base64.b64encode(c.payload[:4096]).decode()): c for c in bad}
        assert parked.keys() == wanted.keys()
        for key, case in wanted.items():
            row = parked[key]
            assert (row["times"], row["cut"]) == (1, len(case.payload) > 4096)
            for fault in case.expect["rejected"]:
                assert fault["field"] in row["reason"]
                assert fault["reason_contains"] in row["reason"]

        # Whoever was understood is shown, though nobody registered it; whoever was not is no device.
        heard = {_device(case) for case in cases if not case.rejected} | {GOOD_DEVICE}
        devices = {row["id"]: row["registered"] for row in api.items("/api/v1/devices", limit=500)}
        assert devices == {device: device == GOOD_DEVICE for device in heard}


def _device(case: Case) -> str:
    _, _, site, _, device, _ = case.topic.split("/")
    return f"{site}.{device}"


def quarantine(api: Api) -> list[dict[str, Any]]:
    """All of it, page by page."""
    rows: list[dict[str, Any]] = []
    before: dict[str, int] = {}
    while True:
        page = api.get("/api/v1/quarantine", limit=30, **before)
        rows += page["items"]
        if page["next"] is None:
            return rows
        before = {"before_id": page["next"]}


def test_retained_garbage_on_every_topic_before_the_service_starts(mosquitto: servers.Mosquitto, data: Path) -> None:
    recording = Recording("entrapment")
    garbage = [
        b"%%% not json",
        b'{"ts": "yesterday"}',
        b"\xff\xfe\x00",
        b"[" * 5_000,
        b'{"ts": NaN, "floor": Infinity}',
    ]
    topics = [
        f"tizhuang/v1/{site}/{kind}/{device}/{channel}"
        for site, kind, device in (
            ("fenghe", "elevator", "lift-07"),  # the one that will have somebody trapped
            ("fenghe", "charger", "lift-07"),
            ("fenghe", "escalator", "lift-07"),
            ("nanxi", "charger", "pile-03"),
            ("FENGHE", "elevator", "Lift 7"),
        )
        for channel in ("status", "telemetry", "event", "command", "reply", "nonsense", "status/deeper")
    ]
    for number, topic in enumerate(topics):
        mosquitto.publish(topic, garbage[number % len(garbage)], retain=True)
    with serving(mosquitto, data) as (_, api):
        counts = api.wait_until_settled(len(topics))
        assert counts["quarantined"] == len(topics)
        assert api.items("/api/v1/devices") == [], "garbage makes no device"
        recording.play(mosquitto, now_ms())
        ticket = api.wait_for_ticket("fenghe.lift-07")
        assert ticket["severity"] == "P0"
        counts = api.wait_until_settled(len(topics) + len(recording.messages))
        assert counts["quarantined"] == len(topics)
        assert balanced(counts)
        assert {row["device"] for row in api.items("/api/v1/tickets")} == {"fenghe.lift-07"}
        assert {row["topic"] for row in quarantine(api)} == set(topics)
    # The broker hands all of it over again at the next start: the same rows, counted up, and still one ticket.
    with serving(mosquitto, data) as (_, api):
        api.wait_until_settled(len(topics))
        assert len(quarantine(api)) == len(topics)
        assert len(api.tickets("fenghe.lift-07")) == 1


def test_duplicates_and_samples_out_of_order(mosquitto: servers.Mosquitto, data: Path) -> None:
    device, topic = "fenghe.lift-02", "tizhuang/v1/fenghe/elevator/lift-02/telemetry"
    start = now_ms() // 1_000 * 1_000 - 60_000
    samples = [{"ts": start + 1_000 * n, "seq": n, "floor": 1 + n % 6, "motor_temp_c": 20.5 + n} for n in range(40)]
    order = samples * 2
    random.Random(7).shuffle(order)
    with serving(mosquitto, data) as (service, api):
        mosquitto.publish_lines(topic, [json.dumps(one) for one in order])
        counts = api.wait_until_settled(len(order))
        assert (counts["stored"], counts["duplicate"], counts["quarantined"]) == (40, 40, 0)
        service.kill()
    with serving(mosquitto, data) as (_, api):
        # This process has never seen them: they are stored again, on the same points, one of them as a backlog.
        mosquitto.publish_lines(topic, [json.dumps(samples[:20][::-1]), *(json.dumps(one) for one in samples[20:])])
        counts = api.wait_until_settled(21)
        assert (counts["stored"], counts["duplicate"]) == (21, 0)
        assert balanced(counts)
        for field in ("floor", "motor_temp_c"):
            sent = [(one["ts"], one[field]) for one in samples]
            assert points(api, device, field, start, start + 60_000, step=1_000) == sent
        newest = api.get(f"/api/v1/devices/{device}")["parts"][""]
        assert newest["ts"] == samples[-1]["ts"]
        assert newest["values"]["motor_temp_c"]["value"] == 59.5


def test_an_unknown_device_is_kept_and_shown_as_unregistered(mosquitto: servers.Mosquitto, data: Path) -> None:
    register(data)
    stranger = "far-away.pile-99"
    with serving(mosquitto, data) as (_, api):
        now = now_ms()
        mosquitto.publish(GOOD, json.dumps({"ts": now, "floor": 3}))
        mosquitto.publish(
            "tizhuang/v1/far-away/charger/pile-99/telemetry",
            json.dumps({"ts": now, "oil_bar": 7, "ports": [{"port": 3, "temp_c": 41.5}]}),
        )
        api.wait_until_settled(2)
        found = api.get(f"/api/v1/devices/{stranger}")
        assert (found["registered"], found["kind"], found["site"], found["state"]) == (
            False,
            "charger",
            "far-away",
            "online",
        )
        assert found["parts"]["3"]["values"]["temp_c"]["value"] == 41.5
        assert found["parts"][""]["values"]["oil_bar"]["value"] == 7
        assert api.get(f"/api/v1/devices/{GOOD_DEVICE}")["registered"] is True
        assert {site["id"]: site["registered"] for site in api.items("/api/v1/sites")} == {
            "good-place": True,
            "far-away": False,
        }
        # It may not change its kind: that would be another device under the same name.
        mosquitto.publish("tizhuang/v1/far-away/elevator/pile-99/telemetry", json.dumps({"ts": now, "floor": 1}))
        counts = api.wait_until_settled(3)
        assert counts["quarantined"] == 1
        (row,) = quarantine(api)
        assert "known as 'charger'" in row["reason"]
