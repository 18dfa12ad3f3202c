"""The course of one fault: more and less urgent, over, back again; and what is written of each step."""

from __future__ import annotations

from typing import Any

import pytest

from storage.casebook import LINK_MS
from storage.incidents import Incidents
from storage.outbox import Outbox
from storage.records import Records
from storage.registry import Registry
from storage.tickets import Tickets
from tests.storage.changes import change

R = 600_000
"""`reopen_ms` of these rules."""


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


@pytest.fixture
def incidents(records: Records) -> Incidents:
    return Incidents(records)


@pytest.fixture
def tickets(records: Records) -> Tickets:
    return Tickets(records)


def kinds(records: Records) -> list[str]:
    """What is told now, and was not told before."""
    outbox = Outbox(records)
    letters = outbox.claim("test", now=10**15, limit=1_000)
    for letter in letters:
        outbox.sent(letter.id, now=10**15)
    return [letter.kind for letter in letters]


def actions(tickets: Tickets, ticket_id: int = 1) -> list[str]:
    return [entry.action for entry in tickets.history(ticket_id)]


def finish(tickets: Tickets, ticket_id: int = 1, *, now: int = 50) -> None:
    """A person mends it and closes the ticket."""
    for action in ("accept", "arrive", "done", "verify", "close"):
        tickets.act(ticket_id, action, actor="wang", said={"clear": True}, now=now)


# --- urgency ---------------------------------------------------------------------------------------------------------

URGENCY: list[tuple[str, list[dict[str, Any]], str, list[str]]] = [
    ("the change decides, not the finding", [{"effect": "raise", "severity": "P3", "now_severity": "P1"}], "P1", []),
    (
        "the most urgent of what was and what is given",
        [{"effect": "raise", "severity": "P1"}, {"effect": "raise", "rule": "b", "severity": "P2"}],
        "P1",
        ["joined"],
    ),
    (
        "it eases",
        [{"effect": "raise", "severity": "P1"}, {"effect": "ease", "now_severity": "P3"}],
        "P3",
        ["eased"],
    ),
    (
        "easing never makes it more urgent",
        [{"effect": "raise", "severity": "P2"}, {"effect": "ease", "now_severity": "P1"}],
        "P2",
        [],
    ),
    (
        "an entrapment stays what it is until a person ends it",
        [{"effect": "raise", "severity": "P0", "needs_clear": True}, {"effect": "ease", "now_severity": "P3"}],
        "P0",
        [],
    ),
    ("nothing is open", [{"effect": "ease", "now_severity": "P3"}], "", []),
]


@pytest.mark.parametrize(("steps", "severity", "lines"), [case[1:] for case in URGENCY], ids=[c[0] for c in URGENCY])
def test_urgency(incidents, tickets, steps, severity, lines):
    for at, step in enumerate(steps, start=1_000):
        incidents.apply([change(at=at, **step)], now=at)
    assert [one.severity for one in incidents.find()] == ([severity] if severity else [])
    if severity:
        assert actions(tickets)[3:] == lines


def test_easing_is_told_and_says_from_what(records, incidents, tickets):
    incidents.apply([change("raise", 1_000, severity="P1")], now=1_000)
    incidents.apply([change("ease", 2_000, rule="bad", now_severity="P3", reason="late-data")], now=2_000)
    line = tickets.history(1)[-1]
    assert (line.action, line.device_ms, line.from_state, line.to_state) == ("eased", 2_000, "dispatched", "dispatched")
    assert line.facts == {"rule": "bad", "reason": "late-data", "severity": "P3", "before": "P1"}
    assert kinds(records) == ["opened", "changed"]


# --- what is written -------------------------------------------------------------------------------------------------


def test_the_report_holds_evidence_and_what_the_ticket_starts_with(incidents, tickets):
    evidence = {"values": {}, "version": "3a5f"}
    ticket = {"service_level": "rescue", "checklist": "entrapment"}
    incidents.apply([change("raise", 1_000, evidence=evidence, ticket=ticket)], now=5_000)
    assert tickets.history(1)[0].facts == {**evidence, "rule": "rule", **ticket}
    assert incidents.get(1).rule_version == "3a5f"


@pytest.mark.parametrize("reason", ["late-data", "clock-set-back", "rule-changed", "inhibition-over"])
@pytest.mark.parametrize("effect", ["raise", "clear"])
def test_the_reason_is_in_the_line(incidents, tickets, effect, reason):
    incidents.apply([change("raise", 1_000)], now=5_000)
    incidents.apply([change(effect, 2_000, reason=reason)], now=6_000)
    assert tickets.history(1)[-1].facts["reason"] == reason
    assert incidents.get(1).reason == (reason if effect == "clear" else "")


def test_unstable_is_a_line_and_moves_nothing(records, incidents, tickets):
    incidents.apply([change("raise", 1_000)], now=5_000)
    incidents.apply([change("none", 2_000, reason="unstable")], now=6_000)
    incidents.apply([change("raise", 3_000, rule="b", reason="unstable")], now=7_000)
    incidents.apply([change("none", 4_000, reason="settled")], now=8_000)
    assert actions(tickets)[3:] == ["unstable", "joined", "unstable", "settled"]
    assert kinds(records) == ["opened"]
    incidents.apply([change("none", 5_000, group="nothing open", reason="unstable")], now=8_000)
    assert len(incidents.find()) == 1


# --- a rule that is deleted ------------------------------------------------------------------------------------------

DELETED: list[tuple[str, dict[str, Any], list[str], str | None]] = [
    ("nobody is on it", {}, [], "rule_deleted"),
    ("its rule closes by telemetry", {"close": "telemetry"}, [], "rule_deleted"),
    ("somebody accepted", {}, ["accept"], None),
    ("somebody is there", {}, ["accept", "arrive"], None),
    ("an entrapment", {"needs_clear": True}, [], None),
]


@pytest.mark.parametrize(("finding", "done", "outcome"), [case[1:] for case in DELETED], ids=[c[0] for c in DELETED])
def test_a_deleted_rule_ends_what_nobody_took_on(incidents, tickets, finding, done, outcome):
    incidents.apply([change("raise", 1_000, **finding)], now=5_000)
    for action in done:
        tickets.act(1, action, actor="wang", said={}, now=5_500)
    incidents.apply([change("clear", 2_000, reason="rule-deleted", **finding)], now=6_000)
    found = incidents.get(1)
    assert (found.outcome, found.cleared_device_ms, found.reason) == (outcome, 2_000, "rule-deleted")
    assert (tickets.get(1).state == "closed") == (outcome is not None)


# --- back again ------------------------------------------------------------------------------------------------------


def by_telemetry(incidents: Incidents, _tickets: Tickets) -> None:
    incidents.apply([change("clear", 10_000, close="telemetry")], now=50)


def by_a_person(incidents: Incidents, tickets: Tickets) -> None:
    incidents.apply([change("clear", 10_000)], now=40)
    finish(tickets)


def by_a_person_before_it_was_over(incidents: Incidents, tickets: Tickets) -> None:
    finish(tickets)
    incidents.apply([change("clear", 10_000)], now=60)


BACK = [
    (by_telemetry, 1, R, True),
    (by_telemetry, R, R, True),
    (by_telemetry, R + 1, R, False),
    (by_telemetry, 0, R, True),
    (by_telemetry, 1, 0, False),
    (by_telemetry, -1, R, False),
    (by_a_person, R, R, True),
    (by_a_person, R + 1, R, False),
    (by_a_person_before_it_was_over, R, R, True),
    (by_a_person_before_it_was_over, R + 1, R, False),
]


@pytest.mark.parametrize(("close", "gone_ms", "reopen_ms", "same"), BACK)
def test_what_comes_back_soon_is_the_same_incident(records, incidents, tickets, close, gone_ms, reopen_ms, same):
    incidents.apply([change("raise", 1_000, severity="P3")], now=5_000)
    close(incidents, tickets)
    kinds(records)
    again = change("raise", 10_000 + gone_ms, rule="again", severity="P2", reopen_ms=reopen_ms)
    incidents.apply([again], now=70)
    incidents.apply([again], now=80)
    found = incidents.find()
    if not same:
        assert [(one.id, one.previous_id, one.reopened) for one in found] == [(2, 1, 0), (1, None, 0)]
        assert kinds(records) == ["opened"]
        return
    (one,) = found
    assert (one.closed, one.cleared_device_ms, one.outcome, one.reopened, one.severity) == (None, None, None, 1, "P2")
    assert (tickets.get(1).state, tickets.get(1).contractor_id) == ("dispatched", "east")
    assert actions(tickets)[-2:] == ["reopen", "dispatch"]
    line = tickets.history(1)[-2]
    assert (line.device_ms, line.from_state, line.to_state, line.facts["rule"]) == (
        10_000 + gone_ms,
        "closed",
        "filed",
        "again",
    )
    assert kinds(records) == ["reopened"]


def test_without_a_contractor_it_waits_for_dispatch_again(incidents, tickets):
    pile: dict[str, Any] = {"device": "here.pile", "close": "telemetry", "reopen_ms": R}
    incidents.apply([change("raise", 1_000, **pile), change("clear", 2_000, **pile)], now=5)
    incidents.apply([change("raise", 3_000, **pile), change("clear", 4_000, **pile)], now=6)
    incidents.apply([change("raise", 5_000, **pile)], now=7)
    assert [(one.reopened, one.closed) for one in incidents.find()] == [(2, None)]
    assert tickets.get(1).state == "filed"


def test_closed_while_still_true_counts_from_its_beginning(incidents, tickets):
    """Our own clock would make a replay differ from what was live."""
    incidents.apply([change("raise", 1_000)], now=5_000)
    finish(tickets, now=9_999_999)
    incidents.apply([change("raise", 1_000 + R, rule="b", reopen_ms=R)], now=5_000)
    assert [one.reopened for one in incidents.find()] == [1]


def test_a_false_alarm_that_comes_back_is_looked_at_anew(incidents, tickets):
    incidents.apply([change("raise", 1_000)], now=5_000)
    tickets.act(1, "false_alarm", actor="li", said={"note": "sun on the sensor"}, now=6_000)
    incidents.apply([change("clear", 2_000), change("raise", 2_001, reopen_ms=R)], now=7_000)
    assert [(one.id, one.previous_id, one.outcome) for one in incidents.find()] == [
        (2, 1, None),
        (1, None, "false_alarm"),
    ]


@pytest.mark.parametrize(("gone_ms", "previous"), [(LINK_MS, 1), (LINK_MS + 1, None)])
def test_what_comes_back_within_thirty_days_names_the_one_before(incidents, gone_ms, previous):
    incidents.apply([change("raise", 1_000, close="telemetry"), change("clear", 2_000, close="telemetry")], now=5_000)
    incidents.apply([change("raise", 2_000 + gone_ms)], now=6_000)
    assert incidents.find()[0].previous_id == previous


def test_links_hold_within_one_batch_too(incidents):
    """As in a backlog of hours: each opens, closes and comes back in the same transaction."""
    batch = [
        one
        for start in (1_000, 2_000, 3_000)
        for one in (change("raise", start, close="telemetry"), change("clear", start + 500, close="telemetry"))
    ]
    incidents.apply(batch, now=5_000)
    assert [(one.id, one.previous_id) for one in reversed(incidents.find())] == [(1, None), (2, 1), (3, 2)]


def test_however_batches_are_cut_the_books_are_the_same(records, incidents, tickets):
    """Live = backlog = replay, also with another worker that lags behind and repeats everything one by one."""
    steps: list[str] = ["raise a", "raise b", "clear a", "raise a", "ease b", "clear b", "none a"]
    course = []
    for at, step in enumerate(steps, start=1_000):
        effect, rule = step.split()
        course.append(change(effect, at, close="telemetry", reopen_ms=R, rule=rule))  # type: ignore[arg-type]
    incidents.apply(course, now=5_000)
    before = incidents.find(), tickets.history(1), _by_rule(incidents.rule_states())
    assert kinds(records)
    for one in course:
        incidents.apply([one], now=6_000)
    for start in range(len(course)):
        incidents.apply(course[start : start + 3], now=7_000)
    assert (incidents.find(), tickets.history(1), _by_rule(incidents.rule_states())) == before
    assert kinds(records) == []


def _by_rule(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["rule_id"]: row for row in rows}


# --- whole sites -----------------------------------------------------------------------------------------------------


def test_an_incident_of_a_whole_site(records, incidents, tickets):
    incidents.apply([change("raise", 1_000, device="here.*", group="power-cut")], now=5_000)
    assert tickets.get(1)[6:11] == ("here.*", "", "here", "site", "power-cut")
    assert (tickets.get(1).device_zh, tickets.get(1).device_en) == ("整个小区", "whole site")
    assert [one.device_id for one in incidents.find(site_id="here")] == ["here.*"]
    registry = Registry(records)
    assert [one.id for one in registry.devices()] == ["here.lift", "here.pile"]
    assert [one.id for one in registry.devices(whole_sites=True)] == ["here.*", "here.lift", "here.pile"]
    incidents.apply([change("raise", 2_000, device="nowhere.*")], now=5_000)
    assert registry.device("nowhere.*").site_id == "nowhere"


# --- what was history, and still stands ------------------------------------------------------------------------------


def test_history_that_still_stands_is_told_as_new(records, incidents, tickets):
    incidents.apply([change("raise", 10, late=True)], now=900_000)
    assert kinds(records) == ["late"]
    incidents.apply([change("raise", 20, reason="still-true")], now=900_100)
    assert kinds(records) == ["opened"]
    assert not incidents.find()[0].late
    incidents.apply([change("raise", 30)], now=900_200)
    assert kinds(records) == []


def test_history_that_a_person_closed_stays_closed(records, incidents, tickets):
    incidents.apply([change("raise", 10, late=True)], now=900_000)
    finish(tickets)
    kinds(records)
    incidents.apply([change("raise", 20, reason="still-true")], now=900_100)
    assert kinds(records) == []
    assert [one.outcome for one in incidents.find()] == ["fixed"]


@pytest.mark.parametrize(("severity", "title"), [("P0", "trapped"), ("P1", "stopped"), ("P2", "stopped")])
def test_an_incident_bears_the_title_of_its_most_urgent_rule(incidents, severity, title):
    incidents.apply([change("raise", 10, severity="P1", title="stopped")], now=20)
    incidents.apply([change("raise", 15, rule="other", severity=severity, title="trapped")], now=25)
    found = incidents.find()[0]
    assert (found.title_en, found.rule_id) == (title, "rule")
