"""Silences act on telling alone: what is held back, what is let through, and what is told when they are over."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import MissingField, NotFound
from storage.incidents import Incidents
from storage.outbox import CLOSED_UNTOLD, Outbox
from storage.records import Records
from storage.silences import LONGEST_MS, Silence, Silences, quiet
from storage.tables import outbox as outbox_table
from storage.tickets import Tickets
from tests.storage.changes import change

START, END = 1_000, 2_000
PLAIN: dict[str, Any] = {
    "site_id": "here", "starts": START, "ends": END, "reason": "roof works", "created_by": "li", "now": 0,
}  # fmt: skip
LIFT = {"device_id": "here.lift"}


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


@pytest.fixture
def silences(records: Records) -> Silences:
    return Silences(records)


def tell(records: Records, now: int) -> list[tuple[int, str]]:
    """What goes out at a time: incident and kind."""
    outbox = Outbox(records)
    letters = outbox.claim("test", now=now, limit=1_000)
    for letter in letters:
        outbox.sent(letter.id, now=now)
    return [(letter.incident_id, letter.kind) for letter in letters]


def lines(records: Records, ticket_id: int = 1) -> list[str]:
    return [line.action for line in Tickets(records).history(ticket_id)]


# --- which one covers what -------------------------------------------------------------------------------------------

COVERS: list[tuple[str, dict[str, Any], tuple[str, str, str, int], bool]] = [
    ("a whole site", {}, ("here.lift", "g", "P1", START), True),
    ("the site's own incidents", {}, ("here.*", "g", "P1", START), True),
    ("another site", {}, ("there.lift", "g", "P1", START), False),
    ("a moment before", {}, ("here.lift", "g", "P1", START - 1), False),
    ("its last moment", {}, ("here.lift", "g", "P1", END - 1), True),
    ("its end", {}, ("here.lift", "g", "P1", END), False),
    ("one device", LIFT, ("here.lift", "g", "P1", START), True),
    ("another device", LIFT, ("here.pile", "g", "P1", START), False),
    ("one group", {"fault_group": "g"}, ("here.lift", "g", "P1", START), True),
    ("another group", {"fault_group": "g"}, ("here.lift", "h", "P1", START), False),
    ("life safety is not silenced", {}, ("here.lift", "g", "P0", START), False),
    ("nor with the device named", LIFT, ("here.lift", "g", "P0", START), False),
    ("only when it says so as well", LIFT | {"include_p0": True}, ("here.lift", "g", "P0", START), True),
    ("maintenance of a site", {"kind": "maintenance"}, ("here.lift", "g", "P0", START), False),
    ("maintenance of a device", LIFT | {"kind": "maintenance"}, ("here.lift", "g", "P0", START), True),
]


@pytest.mark.parametrize(("given", "asked", "held"), [case[1:] for case in COVERS], ids=[case[0] for case in COVERS])
def test_what_a_silence_covers(records, silences, given, asked, held):
    made = silences.add(**PLAIN | given)
    device, group, severity, now = asked
    with records.read() as connection:
        found = quiet(connection, device, group, severity, now)
    assert found == (made if held else None)


def test_an_ended_one_covers_nothing(records, silences):
    made = silences.add(**PLAIN)
    assert silences.end(made.id, now=1_500) == made._replace(ended=1_500)
    assert silences.end(made.id, now=1_600).ended == 1_500
    with records.read() as connection:
        assert quiet(connection, "here.lift", "g", "P1", 1_500) is None


def test_the_one_that_lasts_longest_holds(records, silences):
    silences.add(**PLAIN)
    longer = silences.add(**PLAIN | {"ends": END + 500})
    with records.read() as connection:
        assert quiet(connection, "here.lift", "g", "P1", START) == longer


FAULTY: list[tuple[str, dict[str, Any]]] = [
    ("reason", {"reason": " "}),
    ("created_by", {"created_by": ""}),
    ("device", {"device_id": "there.lift"}),
    ("include_p0", {"include_p0": True}),
    ("ends", {"ends": START}),
    ("ends", {"now": END}),
    ("ends", {"ends": START + LONGEST_MS + 1}),
]


@pytest.mark.parametrize(("field", "given"), FAULTY)
def test_what_is_refused(silences, field, given):
    with pytest.raises(MissingField) as caught:
        silences.add(**PLAIN | given)
    assert caught.value.field == field
    assert silences.find() == []


def test_finding(silences):
    site, lift, pile = (silences.add(**PLAIN | {"device_id": one}) for one in (None, "here.lift", "here.pile"))
    there = silences.add(**PLAIN | {"site_id": "there", "ends": END + 1})
    ended = silences.end(silences.add(**PLAIN).id, now=START)

    def ids(found: list[Silence]) -> list[int]:
        return [one.id for one in found]

    assert ids(silences.find()) == [ended.id, there.id, pile.id, lift.id, site.id]
    assert ids(silences.find(active_at=START)) == [there.id, pile.id, lift.id, site.id]
    assert ids(silences.find(active_at=END)) == [there.id]
    assert ids(silences.find(site_id="here", limit=2)) == [ended.id, pile.id]
    assert ids(silences.find(before_id=lift.id)) == [site.id]
    assert ids(silences.find(device_id="here.lift")) == [ended.id, lift.id, site.id]
    assert silences.get(site.id) == site
    with pytest.raises(NotFound):
        silences.end(99, now=START)


# --- what is told ----------------------------------------------------------------------------------------------------


def test_what_begins_in_a_silence_is_told_when_it_is_over(records, silences):
    silence = silences.add(**PLAIN)
    Incidents(records).apply([change("raise", 1_100)], now=1_100)
    assert [one.severity for one in Incidents(records).find(open_only=True)] == ["P1"], "it is followed all the same"
    assert tell(records, END - 1) == []
    assert Outbox(records).waiting() == 0
    line = Tickets(records).history(1)[-1]
    assert (line.action, line.facts["silence"], line.facts["until"]) == ("silenced", silence.id, END)
    assert tell(records, END) == [(1, "opened")]
    assert tell(records, END + 1) == []


def test_ending_it_by_hand_lets_go_at_once(records, silences):
    silence = silences.add(**PLAIN)
    Incidents(records).apply([change("raise", 1_100)], now=1_100)
    silences.end(silence.id, now=1_200)
    assert tell(records, 1_200) == [(1, "opened")]


@pytest.mark.parametrize("how", ["telemetry", "person", "one batch"])
def test_what_is_over_before_anybody_was_told_is_never_told(records, silences, how):
    silences.add(**PLAIN)
    incidents = Incidents(records)
    raised, cleared = change("raise", 1_100, close="telemetry"), change("clear", 1_200, close="telemetry")
    if how == "one batch":
        incidents.apply([raised, cleared], now=1_200)
    else:
        incidents.apply([raised], now=1_100)
        if how == "person":
            Tickets(records).act(1, "false_alarm", actor="li", said={"note": "x"}, now=1_200)
        else:
            incidents.apply([cleared], now=1_200)
    assert [one.closed for one in incidents.find()] == [1_200]
    assert tell(records, END + 1) == []
    with records.read() as connection:
        rows = connection.execute(outbox_table.select()).all()
    assert {(row.sent, row.dropped) for row in rows} == {(1_200, CLOSED_UNTOLD)}
    assert "closed" not in {row.kind for row in rows}


def test_it_is_over_after_the_silence_but_nobody_was_told_yet(records, silences):
    silences.add(**PLAIN)
    incidents = Incidents(records)
    incidents.apply([change("raise", 1_100, close="telemetry")], now=1_100)
    incidents.apply([change("clear", 2_100, close="telemetry")], now=END + 100)
    assert tell(records, END + 200) == []


def test_the_end_of_what_was_told_before_is_told_in_spite_of_it(records, silences):
    incidents = Incidents(records)
    incidents.apply([change("raise", 900, close="telemetry")], now=900)
    assert tell(records, 900) == [(1, "opened")]
    silences.add(**PLAIN)
    incidents.apply([change("raise", 1_050, rule="b", severity="P0")], now=1_050)
    assert tell(records, 1_050) == [(1, "changed")], "life safety is let through"
    incidents.apply([change("clear", 1_100, close="telemetry")], now=1_100)
    assert tell(records, 1_200)[-1] == (1, "closed")


def test_what_grows_worse_takes_the_held_ones_with_it(records, silences):
    """Otherwise "changed" would be told of something that nobody heard of."""
    silences.add(**PLAIN)
    incidents = Incidents(records)
    incidents.apply([change("raise", 1_100)], now=1_100)
    assert tell(records, 1_100) == []
    incidents.apply([change("raise", 1_200, rule="worse", severity="P0")], now=1_200)
    assert tell(records, 1_200) == [(1, "opened"), (1, "changed")]


def test_worse_in_the_same_batch(records, silences):
    silences.add(**PLAIN)
    Incidents(records).apply([change("raise", 1_100), change("raise", 1_200, rule="b", severity="P0")], now=1_200)
    assert tell(records, 1_200) == [(1, "opened"), (1, "changed")]


def test_others_are_told_meanwhile(records, silences):
    silences.add(**PLAIN | LIFT)
    batch = [change("raise", 1_100), change("raise", 1_100, device="here.pile")]
    Incidents(records).apply(batch, now=1_100)
    assert tell(records, 1_100) == [(2, "opened")]
    assert ("silenced" in lines(records, 1), "silenced" in lines(records, 2)) == (True, False)


def test_what_comes_back_in_a_silence_waits_as_well(records, silences):
    incidents = Incidents(records)
    course = {"close": "telemetry", "reopen_ms": 10_000}
    incidents.apply([change("raise", 100, **course), change("clear", 200, **course)], now=900)  # type: ignore[arg-type]
    assert tell(records, 900) == [(1, "opened"), (1, "cleared"), (1, "closed")]
    silences.add(**PLAIN)
    incidents.apply([change("raise", 300, **course)], now=1_100)  # type: ignore[arg-type]
    assert tell(records, 1_100) == []
    incidents.apply([change("clear", 400, **course)], now=1_200)  # type: ignore[arg-type]
    assert tell(records, END) == [], "it was told that it was over, and it is"


def test_people_s_moves_in_a_silence_wait_for_its_end(records, silences):
    silences.add(**PLAIN)
    Incidents(records).apply([change("raise", 1_100)], now=1_100)
    Tickets(records).act(1, "accept", actor="wang", said={}, now=1_200)
    assert tell(records, 1_300) == []
    assert tell(records, END) == [(1, "opened"), (1, "changed")]
