"""Bad input that is more than one message: a case file each, through a real broker. Times count from now, in ms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import servers
from tests.acceptance.conftest import CASES, Api, now_ms, serving

STREAMS = sorted((CASES / "streams").glob("*.yaml"))


def bodies(message: dict[str, Any], end: int) -> Iterator[str]:
    """The payloads of one entry: `times` of them, each with `unknown` field names that nothing else has."""
    for number in range(message.get("times", 1)):
        body = message["payload"] | {"ts": end + message["payload"]["ts"] + number}
        extra = {f"x{number:03}_{index}": index for index in range(message.get("unknown", 0))}
        yield json.dumps(body | extra, separators=(",", ":"))


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_stream(mosquitto: servers.Mosquitto, data: Path, path: Path) -> None:
    case = yaml.safe_load(path.read_text(encoding="utf-8"))
    expect = case["expect"]
    for one in case.get("retained", ()):
        mosquitto.publish(one["topic"], one["text"], retain=True)
    with serving(mosquitto, data) as (service, api):
        end = now_ms()
        for message in case["messages"]:
            mosquitto.publish_lines(message["topic"], list(bodies(message, end)))
        counts = api.wait_until_settled(expect["counts"]["received"])
        assert {name: counts[name] for name in expect["counts"]} == expect["counts"]
        assert counts["balance"] == 0
        for name, least in expect.get("at_least", {}).items():
            assert counts[name] >= least
        _check_what_is_shown(api, expect, end)
        if "resident_mb_under" in expect:
            status = Path(f"/proc/{service.child.pid}/status").read_text()
            assert int(status.split("VmRSS:")[1].split()[0]) / 1024 < expect["resident_mb_under"]


def _check_what_is_shown(api: Api, expect: dict[str, Any], end: int) -> None:
    if wanted := expect.get("points"):
        query = {"field": wanted["field"], "from": end - 5_000, "to": end - 1, "step": 1}
        found = api.get(f"/api/v1/devices/{wanted['device']}/series", **query)["buckets"]
        assert [[one["start"] - end, one["last"]] for one in found] == wanted["values"]
    if newest := expect.get("newest"):
        values = api.get(f"/api/v1/devices/{newest['device']}")["parts"][""]["values"]
        assert values[newest["field"]]["value"] == newest["value"]
    for device, registered in expect.get("devices", {}).items():
        assert api.get(f"/api/v1/devices/{device}")["registered"] is registered
    for device, rules in expect.get("tickets", {}).items():
        assert [one["rule"] for one in api.items("/api/v1/incidents", device=device)] == rules
        assert len(api.tickets(device)) == len(rules)
