"""Telling the world: in order, once it is confirmed, and again when it was not."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from alerts.notify import Announcer, Postman
from core.settings import Mqtt
from storage.incidents import Incidents
from storage.outbox import CLAIM_MS, Letter, Outbox
from storage.records import Records, address, open_records
from storage.registry import Registry
from storage.tickets import Tickets
from tests.proxy import proxy
from tests.servers import Mosquitto, program
from tests.storage.changes import change

GO_ON = threading.Event()


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = open_records(address("", tmp_path))
    Registry(opened).heard([("here.lift", "elevator")], now=1)
    yield opened
    opened.close()


class Listener:
    """A messenger that writes down what it is told, and is out of reach for as long as `away` says so."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []
        self.away: set[int] = set()

    def tell(self, letter: Letter) -> None:
        if letter.incident_id in self.away:
            raise ConnectionError("nobody answers")
        self.told.append((letter.incident_id, letter.kind))


def retained(broker: Mosquitto) -> dict[str, dict[str, object]]:
    """What a newcomer hears on our topics."""
    command = [str(program("mosquitto_sub")), "-h", "127.0.0.1", "-p", str(broker.port), "-t", "#", "-v", "-W", "1"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.splitlines()
    return {topic: json.loads(body) for topic, _, body in (line.partition(" ") for line in lines)}


def test_an_incident_is_retained_while_it_is_open(records: Records, mosquitto: Mosquitto):
    outbox, announcer = Outbox(records), Announcer(Mqtt(url=mosquitto.url))
    postman = Postman(outbox, announcer, "me", lambda: 10)
    try:
        Incidents(records).apply([change("raise", 1_000, close="telemetry", severity="P2")], now=5)
        assert postman.drain(GO_ON) == 1
        ((topic, told),) = retained(mosquitto).items()
        assert topic == "tizhuang/v1/here/alerts/1"
        assert (told["event"], told["device"], told["severity"]) == ("opened", "here.lift", "P2")
        assert told["title"] == {"zh": "题", "en": "title"}
        Incidents(records).apply([change("clear", 2_000, close="telemetry")], now=6)
        assert postman.drain(GO_ON) == 2
        assert retained(mosquitto) == {}
        assert outbox.waiting() == 0
    finally:
        announcer.close()


def test_what_the_broker_did_not_confirm_is_not_settled(records: Records, mosquitto: Mosquitto):
    Incidents(records).apply([change("raise", 1_000)], now=5)
    outbox = Outbox(records)
    with proxy(mosquitto.port) as cable:
        announcer = Announcer(Mqtt(url=cable.url), patience_s=0.5)
        try:
            cable.stalled.set()
            assert Postman(outbox, announcer, "me", lambda: 10).drain(GO_ON) == 0
            assert outbox.waiting() == 1
            cable.stalled.clear()
            assert Postman(outbox, announcer, "me", lambda: 11 + CLAIM_MS).drain(GO_ON) == 1
        finally:
            announcer.close()
    assert list(retained(mosquitto)) == ["tizhuang/v1/here/alerts/1"]


def test_a_broker_that_is_away_is_tried_again(records: Records):
    Incidents(records).apply([change("raise", 1_000)], now=5)
    announcer = Announcer(Mqtt(url="mqtt://127.0.0.1:1"))
    assert Postman(Outbox(records), announcer, "me", lambda: 10).drain(GO_ON) == 0
    assert Outbox(records).waiting() == 1
    announcer.close()


def test_later_news_never_overtake_earlier_ones(records: Records):
    """Else an incident that is over would stay announced as open for ever."""
    listener, outbox, incidents = Listener(), Outbox(records), Incidents(records)
    incidents.apply([change("raise", 1_000), change("raise", 1_000, group="b", rule="b")], now=5)
    one, two = sorted(incident.id for incident in incidents.find())
    listener.away = {one}
    assert Postman(outbox, listener, "me", lambda: 10).drain(GO_ON) == 1
    incidents.apply([change("clear", 2_000)], now=11)
    ticket = next(ticket for ticket in Tickets(records).find() if ticket.incident_id == one)
    Tickets(records).act(ticket.id, "false_alarm", actor="li", said={"note": "x"}, now=12)
    listener.away = set()
    assert Postman(outbox, listener, "other", lambda: 20).drain(GO_ON) == 0, "the first one is still claimed"
    assert Postman(outbox, listener, "other", lambda: 11 + CLAIM_MS).drain(GO_ON) == 3
    assert listener.told == [(two, "opened"), (one, "opened"), (one, "cleared"), (one, "closed")]


def test_one_that_fails_holds_back_only_its_own_incident(records: Records):
    listener, outbox, incidents = Listener(), Outbox(records), Incidents(records)
    incidents.apply(
        [change("raise", 1_000), change("raise", 1_000, group="b", rule="b"), change("clear", 2_000)], now=5
    )
    one, two = sorted(incident.id for incident in incidents.find())
    listener.away = {one}
    assert Postman(outbox, listener, "me", lambda: 10).drain(GO_ON) == 1
    assert listener.told == [(two, "opened")]


def test_a_stop_is_heeded_between_two_letters(records: Records):
    Incidents(records).apply([change("raise", 1_000)], now=5)
    listener, stop = Listener(), threading.Event()
    stop.set()
    assert Postman(Outbox(records), listener, "me", lambda: 10).drain(stop) == 0
    assert listener.told == []
