"""A recorded fault goes in through a real Mosquitto by `mosquitto_pub`; one ticket comes out, whatever is killed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import servers
from tests.acceptance.conftest import Recording, now_ms, records_locked, rule_states, serving


class Case(NamedTuple):
    """A recording and what must come of it."""

    recording: str
    device: str
    part: str
    rule: str
    """The first that fires."""
    severity: str
    """In the end: a further rule of the group may be more urgent."""
    pending_from: int
    """Index of the first message with which the rule's condition is true."""
    for_ms: int


CASES = [
    Case("entrapment", "fenghe.lift-07", "", "lift-entrapment-between-floors", "P0", 10, 20_000),
    Case("overheat", "nanxi-a.pile-03", "4", "port-heating", "P1", 4, 30_000),
]


@pytest.fixture(params=CASES, ids=lambda case: case.recording)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def test_one_ticket_comes_out(mosquitto: servers.Mosquitto, data: Path, case: Case) -> None:
    recording = Recording(case.recording)
    with serving(mosquitto, data) as (_, api):
        end = now_ms()
        recording.play(mosquitto, end)
        ticket = api.wait_for_ticket(case.device, severity=case.severity)
        assert ticket["part"] == case.part
        true_since = end + recording.messages[case.pending_from].at_ms
        assert ticket["opened_device_ms"] == true_since + case.for_ms
        (incident,) = api.items("/api/v1/incidents", device=case.device)
        assert incident["rule"] == case.rule
        assert incident["evidence"]["since"] == true_since
        # The same recording again is a repeat, and changes nothing.
        recording.play(mosquitto, end)
        counts = api.wait_until_settled(2 * len(recording.messages))
        assert counts["duplicate"] == len(recording.messages)
        assert counts["received"] == counts["stored"] + counts["duplicate"] + counts["quarantined"]
        assert len(api.tickets(case.device)) == 1


def test_killed_between_message_and_acknowledgement(mosquitto: servers.Mosquitto, data: Path, case: Case) -> None:
    recording = Recording(case.recording)
    end = now_ms()
    with serving(mosquitto, data) as (service, api):
        recording.play(mosquitto, end, stop=case.pending_from)
        api.wait_until_settled(case.pending_from)
        with records_locked(data):
            recording.play(mosquitto, end, start=case.pending_from)
            servers.wait_until("received and not durable", lambda: api.get("/api/v1/stats")["in_flight"])
            service.kill()
    with serving(mosquitto, data) as (_, api):
        rest = len(recording.messages) - case.pending_from
        counts = api.wait_until_settled(rest)
        assert counts["received"] >= rest, "the broker kept what was not acknowledged"
        ticket = api.wait_for_ticket(case.device)
        assert ticket["opened_device_ms"] == end + recording.messages[case.pending_from].at_ms + case.for_ms
        assert len(api.items("/api/v1/incidents", device=case.device)) == 1


def test_killed_right_after_the_ticket_was_written(mosquitto: servers.Mosquitto, data: Path, case: Case) -> None:
    """Between the ticket's commit and the acknowledgement, as near as another process can aim."""
    recording = Recording(case.recording)
    due = recording.messages[case.pending_from].at_ms + case.for_ms
    fires_with = next(index for index, one in enumerate(recording.messages) if one.at_ms >= due)
    end = now_ms()
    with serving(mosquitto, data) as (service, api):
        recording.play(mosquitto, end, stop=fires_with)
        api.wait_until_settled(fires_with)
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(recording.play, mosquitto, end, start=fires_with)
            while not rule_states(data, "firing"):
                assert service.child.poll() is None
            service.kill()
            rest.result()
    with serving(mosquitto, data) as (_, api):
        remaining = len(recording.messages) - fires_with - 1
        api.wait_until_settled(remaining)
        assert len(api.tickets(case.device)) == 1
        (incident,) = api.items("/api/v1/incidents", device=case.device)
        assert incident["opened_device_ms"] == end + due


def test_killed_while_the_rule_is_pending(mosquitto: servers.Mosquitto, data: Path, case: Case) -> None:
    """Nothing more comes from the device: after the restart the timer alone must fire, with the true instant."""
    recording = Recording(case.recording)
    head_ms = 3_000
    end = now_ms() - recording.messages[case.pending_from].at_ms - case.for_ms + head_ms
    with serving(mosquitto, data) as (service, api):
        recording.play(mosquitto, end, stop=case.pending_from + 1)
        still_true = recording.messages[case.pending_from + 1]
        mosquitto.publish(still_true.topic, json.dumps({"ts": now_ms(), **still_true.payload}))
        api.wait_until_settled(case.pending_from + 2)
        servers.wait_until("pending on disk", lambda: rule_states(data, "pending"))
        pending = {row[:3]: row[3] for row in rule_states(data, "pending")}
        since = pending[case.device, case.part, case.rule]
        assert api.tickets(case.device) == []
        service.kill()
    with serving(mosquitto, data) as (_, api):
        ticket = api.wait_for_ticket(case.device)
        assert ticket["opened_device_ms"] == since + case.for_ms
        assert len(api.items("/api/v1/incidents", device=case.device)) == 1


def test_an_entrapment_runs_the_whole_loop(mosquitto: servers.Mosquitto, data: Path) -> None:
    """Every step by the API; it cannot be closed without the statement, and illegal moves change nothing."""
    device = "fenghe.lift-07"
    with serving(mosquitto, data) as (_, api):
        Recording("entrapment").play(mosquitto, now_ms())
        number = api.wait_for_ticket(device)["id"]
        before = api.get(f"/api/v1/tickets/{number}")
        assert api.act(number, "verify").status_code == 409
        assert api.act(number, "close", clear=True).status_code == 409
        after = api.get(f"/api/v1/tickets/{number}")
        assert (after["state"], after["history"]) == (before["state"], before["history"])
        for action in ("dispatch", "accept", "arrive", "done", "verify"):
            answer = api.act(number, action)
            assert answer.status_code == 200, f"{action}: {answer.text}"
        refused = api.act(number, "close")
        assert refused.status_code == 422
        assert refused.json()["error"]["field"] == "clear"
        assert api.act(number, "close", clear=True).status_code == 200
        closed = api.get(f"/api/v1/tickets/{number}")
        assert closed["state"] == "closed"
        moved = [line["to_state"] for line in closed["history"] if line["from_state"] != line["to_state"]]
        assert moved == ["reported", "filed", "dispatched", "accepted", "on_site", "done", "verified", "closed"]
        assert api.items("/api/v1/incidents", device=device, state="open") == []
