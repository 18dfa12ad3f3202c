"""One fault = one ticket, whoever applies what, how often and at the same time."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from core.errors import IllegalMove, MissingField, NotFound
from core.ticket import State, allowed
from storage import tables
from storage.incidents import Incident, Incidents
from storage.outbox import CLAIM_MS, Outbox
from storage.records import Records, open_records
from storage.registry import Registry
from storage.tickets import Tickets
from tests.servers import ROOT
from tests.storage.changes import change

WRITTEN = ("rule_state", "incident", "ticket", "ticket_history", "outbox")


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


@pytest.fixture
def incidents(records: Records) -> Incidents:
    return Incidents(records)


@pytest.fixture
def tickets(records: Records) -> Tickets:
    return Tickets(records)


def counts(records: Records) -> dict[str, int]:
    with records.read() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(tables.metadata.tables[name])).scalar_one()
            for name in WRITTEN
        }


def told(records: Records) -> list[str]:
    """Kinds of outbox rows, in order."""
    with records.read() as connection:
        return list(connection.execute(select(tables.outbox.c.kind).order_by(tables.outbox.c.id)).scalars())


def break_inserts(connection: Connection, table: str) -> None:
    """The database refuses every new row of a table."""
    if connection.dialect.name == "sqlite":
        refusal = "BEGIN SELECT RAISE(ABORT, 'broken'); END"
    else:
        body = "BEGIN RAISE EXCEPTION 'broken'; END"
        connection.execute(text(f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"))
        refusal = "EXECUTE FUNCTION refuse()"
    connection.execute(text(f"CREATE TRIGGER broken BEFORE INSERT ON {table} {refusal}"))


def mend_inserts(connection: Connection, table: str) -> None:
    where = f" ON {table}" if connection.dialect.name == "postgresql" else ""
    connection.execute(text(f"DROP TRIGGER broken{where}"))


def actions(tickets: Tickets, ticket_id: int = 1) -> list[str]:
    return [entry.action for entry in tickets.history(ticket_id)]


def test_a_raise_is_an_incident_a_ticket_its_history_and_a_letter(records, incidents, tickets):
    evidence = {"values": {"door": {"value": "困", "ts": 1}}}
    incidents.apply([change("raise", 1_000, severity="P0", needs_clear=True, evidence=evidence)], now=5_000)
    (incident,) = incidents.find()
    assert (incident.opened_device_ms, incident.opened, incident.evidence) == (1_000, 5_000, evidence)
    (ticket,) = tickets.find(open_only=True)
    assert (ticket.incident_id, ticket.state, ticket.contractor_id) == (incident.id, "dispatched", "east")
    assert actions(tickets) == ["report", "file", "dispatch"]
    assert tickets.history(1)[0].device_ms == 1_000
    (letter,) = Outbox(records).claim("me", now=6_000)
    assert (letter.kind, letter.payload["ticket"], letter.payload["severity"]) == ("opened", ticket.id, "P0")


def test_without_a_contractor_the_ticket_waits_for_dispatch(incidents, tickets):
    incidents.apply([change("raise", 1_000, device="here.pile", part="3")], now=5_000)
    assert [(one.state, one.part) for one in tickets.find()] == [("filed", "3")]


@pytest.mark.parametrize("table", WRITTEN)
def test_what_fails_half_way_leaves_nothing(records, incidents, table):
    with records.write() as connection:
        break_inserts(connection, table)
    with pytest.raises(SQLAlchemyError):
        incidents.apply([change("raise", 1_000)], now=5_000)
    assert set(counts(records).values()) == {0}
    with records.write() as connection:
        mend_inserts(connection, table)
    incidents.apply([change("raise", 1_000)], now=5_000)
    assert counts(records) == {"rule_state": 1, "incident": 1, "ticket": 1, "ticket_history": 3, "outbox": 1}


@pytest.mark.parametrize(
    "broken",
    [change("raise", 2_000, device="nowhere.lift"), change("raise", 2_000, part="2", evidence={"x": object()})],
    ids=["a device that nobody knows", "evidence that is not JSON"],
)
def test_a_broken_change_takes_the_good_ones_of_its_batch_with_it(records, incidents, broken):
    with pytest.raises((SQLAlchemyError, NotFound, TypeError)):
        incidents.apply([change("raise", 1_000), broken], now=5_000)
    assert set(counts(records).values()) == {0}


@pytest.mark.parametrize("close", ["person", "telemetry"])
def test_the_same_changes_again_add_nothing(records, incidents, close):
    """As when the answer to a COMMIT was lost: the batch is applied a second time."""
    batch = [
        change("raise", 1_000, close=close),
        change("raise", 1_500, rule="other", close=close),
        change("clear", 2_000, close=close),
        change("raise", 3_000, close=close),
        change("clear", 4_000, close=close),
    ]
    incidents.apply(batch, now=5_000)
    before, letters = counts(records), told(records)
    incidents.apply(batch, now=6_000)
    incidents.apply(batch[-1:], now=7_000)
    assert (counts(records), told(records)) == (before, letters)


def test_a_rule_of_the_group_joins_and_raises_the_urgency(records, incidents, tickets):
    incidents.apply([change("raise", 1_000, severity="P2")], now=5_000)
    incidents.apply([change("raise", 2_000, rule="worse", severity="P0", needs_clear=True)], now=6_000)
    incidents.apply([change("raise", 3_000, rule="mild", severity="P3")], now=7_000)
    (incident,) = incidents.find()
    assert (incident.severity, incident.needs_clear, incident.rule_id) == ("P0", True, "rule")
    assert actions(tickets) == ["report", "file", "dispatch", "joined", "joined"]
    assert told(records) == ["opened", "changed"]


@pytest.mark.parametrize("value", ["\x00", "\ud800", "乘客" * 2_000, "'; DROP TABLE ticket", float("1e300"), 2**60])
def test_whatever_a_device_says_can_be_evidence(incidents, tickets, value):
    evidence = {"values": {"door": {"value": value, "ts": 1}}}
    incidents.apply([change("raise", 1_000, evidence=evidence)], now=5_000)
    assert incidents.get(1).evidence == evidence
    assert tickets.history(1)[0].facts == evidence | {"rule": "rule"}


def test_parts_devices_and_groups_are_apart(incidents, tickets):
    apart = [
        change("raise", 1, part="1"),
        change("raise", 1, part="2"),
        change("raise", 1, rule="b", group="b"),
        change("raise", 1, device="here.pile"),
    ]
    incidents.apply(apart, now=5)
    assert len(incidents.find(open_only=True)) == len(tickets.find(open_only=True)) == 4
    assert incidents.open_severities() == {"here.lift": {"P1": 3}, "here.pile": {"P1": 1}}


def test_telemetry_closes_what_nobody_has_taken_on(records, incidents, tickets):
    incidents.apply([change("raise", 1_000, close="telemetry")], now=5_000)
    incidents.apply([change("clear", 2_000, close="telemetry")], now=6_000)
    (incident,) = incidents.find()
    assert (incident.cleared_device_ms, incident.closed, incident.outcome) == (2_000, 6_000, "recovered")
    assert tickets.get(1).state == "closed"
    assert actions(tickets)[-2:] == ["cleared", "recover"]
    assert told(records) == ["opened", "cleared", "closed"]
    incidents.apply([change("raise", 3_000, close="telemetry")], now=7_000)
    assert [one.closed for one in incidents.find()] == [None, 6_000]


@pytest.mark.parametrize("taken_on", [["accept"], ["accept", "arrive"], ["accept", "arrive", "done"]])
def test_telemetry_does_not_close_what_somebody_has_taken_on(incidents, tickets, taken_on):
    incidents.apply([change("raise", 1_000, close="telemetry")], now=5_000)
    for action in taken_on:
        tickets.act(1, action, actor="wang", said={}, now=5_500)
    incidents.apply([change("clear", 2_000, close="telemetry")], now=6_000)
    assert (tickets.get(1).cleared_device_ms, tickets.get(1).closed) == (2_000, None)
    assert tickets.get(1).state != "closed"


def test_telemetry_never_closes_an_entrapment(incidents, tickets):
    """Even when the rule that ends last would close its own incidents by telemetry."""
    incidents.apply([change("raise", 1_000, rule="trapped", needs_clear=True)], now=5_000)
    incidents.apply([change("raise", 1_500, rule="mild", close="telemetry")], now=5_500)
    incidents.apply([change("clear", 2_000, rule="mild", close="telemetry")], now=6_000)
    ticket = tickets.get(1)
    assert (ticket.cleared_device_ms, ticket.closed, ticket.state) == (2_000, None, "dispatched")


def test_a_fault_that_comes_back_is_the_same_incident_until_somebody_closes_it(incidents, tickets):
    incidents.apply([change("raise", 1_000), change("clear", 2_000), change("raise", 3_000)], now=5_000)
    (incident,) = incidents.find()
    assert (incident.opened_device_ms, incident.cleared_device_ms) == (1_000, None)
    tickets.act(1, "false_alarm", actor="li", said={"note": "test"}, now=6_000)
    incidents.apply([change("clear", 7_000)], now=7_000)
    incidents.apply([change("raise", 8_000)], now=8_000)
    assert [(one.closed, one.outcome) for one in incidents.find()] == [(None, None), (6_000, "false_alarm")]


def test_late_findings_say_so_and_page_nobody(records, incidents):
    incidents.apply([change("raise", 1_000, late=True)], now=5_000)
    assert incidents.find()[0].late is True
    assert told(records) == ["late"]


# --- at the same time ------------------------------------------------------------------------------------------------


def test_threads_that_raise_the_same_fault_share_one_incident(url, records):
    """Half of them on one pool of connections, half each on its own."""
    pools = [records] * 4 + [open_records(url) for _ in range(4)]
    start = Barrier(len(pools))

    def raise_all(number: int) -> None:
        start.wait()
        for group in range(5):
            raised = change("raise", 1_000 + number, rule=f"r{number}-{group}", group=f"g{group}")
            Incidents(pools[number]).apply([raised], now=5_000)

    with ThreadPoolExecutor(len(pools)) as threads:
        for done in [threads.submit(raise_all, number) for number in range(len(pools))]:
            done.result()
    for pool in pools[4:]:
        pool.close()
    assert Counter(one.fault_group for one in Incidents(records).find()) == {f"g{group}": 1 for group in range(5)}
    assert counts(records)["ticket"] == 5
    joined = [one for one in Tickets(records).news_after(0) if one.action == "joined"]
    assert len(joined) == 5 * (len(pools) - 1)


def test_two_processes_that_raise_the_same_faults_share_the_incidents(url, records):
    groups = 25
    command = [sys.executable, "-m", "tests.storage.changes", url]
    children = [
        subprocess.Popen(
            [*command, rule, str(groups)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for rule in ("one", "two")
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [child.wait(30) for child in children] == [0, 0]
    for child in children:
        child.communicate()
    assert Counter(one.fault_group for one in Incidents(records).find()) == {f"g{n}": 1 for n in range(groups)}
    assert counts(records) == {
        "rule_state": 2 * groups,
        "incident": groups,
        "ticket": groups,
        "ticket_history": 4 * groups,
        "outbox": groups,
    }


def test_of_eight_people_who_accept_at_once_one_wins(incidents, tickets: Tickets):
    incidents.apply([change("raise", 1_000)], now=5_000)
    start = Barrier(8)

    def accept(number: int) -> str:
        start.wait()
        try:
            return tickets.act(1, "accept", actor=f"crew-{number}", said={}, now=6_000).state
        except IllegalMove:
            return "refused"

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(accept, range(8)))
    assert Counter(results) == {"accepted": 1, "refused": 7}
    assert actions(tickets).count("accept") == 1


# --- people ----------------------------------------------------------------------------------------------------------


def test_an_illegal_move_changes_nothing(records, incidents, tickets):
    incidents.apply([change("raise", 1_000, needs_clear=True)], now=5_000)
    before = counts(records), tickets.get(1)
    for action in ("done", "close", "recover", "report", "", "accept; DROP TABLE ticket"):
        with pytest.raises(IllegalMove):
            tickets.act(1, action, actor="wang", said={"note": "x", "clear": True}, now=6_000)
    with pytest.raises(MissingField, match="note"):
        tickets.act(1, "false_alarm", actor="wang", said={"clear": True, "note": "  "}, now=6_000)
    with pytest.raises(MissingField, match="passengers out"):
        tickets.act(1, "false_alarm", actor="wang", said={"note": "x", "clear": "yes"}, now=6_000)
    with pytest.raises(NotFound):
        tickets.act(2, "accept", actor="wang", said={}, now=6_000)
    assert (counts(records), tickets.get(1)) == before


def test_a_move_and_its_history_and_letter_are_one_transaction(records, incidents, tickets):
    incidents.apply([change("raise", 1_000)], now=5_000)
    before = counts(records), tickets.get(1)
    with records.write() as connection:
        break_inserts(connection, "outbox")
    with pytest.raises(SQLAlchemyError):
        tickets.act(1, "accept", actor="wang", said={}, now=6_000)
    assert (counts(records), tickets.get(1)) == before


STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["raise", "clear", "ease", "rule-deleted"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["telemetry", "person", "clear"]),
    ),
    st.tuples(
        st.just("act"), st.sampled_from([*["accept", "arrive", "done", "verify", "send_back", "close", "false_alarm"]])
    ),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=12))
def test_whatever_devices_and_people_do_the_books_agree(records: Records, steps: list[tuple[Any, ...]]):
    device = f"here.d{counts(records)['rule_state']}-{counts(records)['ticket_history']}"
    Registry(records).heard([(device, "elevator")], now=1)
    incidents, tickets = Incidents(records), Tickets(records)
    pages: dict[int, list[Any]] = {}
    for at, step in enumerate(steps, start=1_000):
        if step[0] == "act":
            for ticket in tickets.find(device_id=device):
                with suppress(IllegalMove):
                    tickets.act(ticket.id, step[1], actor="wang", said={"note": "x", "clear": True}, now=at)
        else:
            effect, rule, way = step
            close = "telemetry" if way == "telemetry" else "person"
            needs_clear = way == "clear"
            reason = effect if effect == "rule-deleted" else ""
            effect = "clear" if reason else effect
            more = {"reason": reason, "reopen_ms": 2, "now_severity": "P2" if effect == "ease" else None}
            one = change(effect, at, device=device, rule=rule, close=close, needs_clear=needs_clear, **more)  # type: ignore[arg-type]
            incidents.apply([one], now=at)
            incidents.apply([one], now=at + 1)
        for ticket in tickets.find(device_id=device):
            history = tickets.history(ticket.id)
            before = pages.get(ticket.id, [])
            assert history[: len(before)] == before, "history was rewritten"
            pages[ticket.id] = list(history)
    found = incidents.find(device_id=device)
    owned = {one.incident_id: one for one in tickets.find(device_id=device)}
    assert set(owned) == {one.id for one in found}
    assert sum(one.closed is None for one in found) <= 1
    for incident in found:
        _agree(incident, owned[incident.id].state, pages[owned[incident.id].id])
    assert len(incidents.rule_states()) >= len({step[1] for step in steps if step[0] != "act"})


def _agree(incident: Incident, state: str, history: list[Any]) -> None:
    assert (incident.closed is None) == (state != State.CLOSED) == (incident.outcome is None)
    assert not (incident.needs_clear and incident.outcome in {"recovered", "rule_deleted"})
    places = [(entry.from_state, entry.to_state) for entry in history]
    assert places[0] == (None, "reported")
    assert all(before[1] == after[0] for before, after in itertools.pairwise(places))
    assert places[-1][1] == state
    assert bool(allowed(State(state))) == (state != State.CLOSED)


# --- the outbox ------------------------------------------------------------------------------------------------------


@pytest.fixture
def outbox(records: Records, incidents: Incidents) -> Outbox:
    for number in range(40):
        incidents.apply([change("raise", 1_000, group=f"g{number}", rule=f"r{number}")], now=5_000)
    return Outbox(records)


def test_two_claimers_never_get_the_same_letter(url, outbox):
    start = Barrier(4)

    def claim(number: int) -> list[int]:
        records = open_records(url)
        try:
            start.wait()
            mine = Outbox(records)
            rounds = [mine.claim(f"p{number}", now=6_000, limit=3) for _ in range(8)]
        finally:
            records.close()
        return [letter.id for letters in rounds for letter in letters]

    with ThreadPoolExecutor(4) as threads:
        claimed = [letter for letters in threads.map(claim, range(4)) for letter in letters]
    assert sorted(claimed) == list(range(1, 41))


def test_letters_come_oldest_first_and_once(outbox):
    first = outbox.claim("me", now=6_000, limit=15)
    assert [letter.id for letter in first] == list(range(1, 16))
    for letter in first:
        outbox.sent(letter.id, now=6_001)
    assert [letter.id for letter in outbox.claim("me", now=6_000 + 10 * CLAIM_MS)] == list(range(16, 41))
    assert outbox.waiting() == 25


def test_the_claim_of_a_dead_process_runs_out(outbox):
    claimed = outbox.claim("dead", now=6_000, limit=100)
    assert outbox.claim("alive", now=6_000 + CLAIM_MS) == []
    again = outbox.claim("alive", now=6_001 + CLAIM_MS, limit=100)
    assert [letter.id for letter in again] == [letter.id for letter in claimed]
    assert {letter.attempts for letter in again} == {2}


def test_what_could_not_be_told_is_tried_again(outbox):
    (letter,) = outbox.claim("me", now=6_000, limit=1)
    outbox.failed(letter.id, "no route " * 1_000)
    assert letter.id not in [one.id for one in outbox.claim("me", now=6_001, limit=100)]
    assert letter.id in [one.id for one in outbox.claim("me", now=6_001 + CLAIM_MS, limit=100)]
