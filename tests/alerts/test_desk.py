"""The engine at work with real records: strangers, databases that are away, and a change that cannot be written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from alerts.desk import AlertDesk
from alerts.rules import load_rules
from core.errors import StoreUnavailable
from core.payload import decode
from core.reading import Batch
from storage.duckdb import DuckDbSeries
from storage.incidents import Incidents
from storage.outbox import Outbox
from storage.records import address, open_records
from storage.registry import Registry
from storage.tickets import Tickets
from tests.alerts.timeline import BASE
from tests.servers import ROOT

RULES = load_rules(ROOT / "deploy" / "rules")
TRAPPED = {"occupied": True, "moving": False, "door_zone": False}


class World:
    """Stores that outlive the desk, a clock that stands where it is put, and an ear for `told`."""

    def __init__(self, folder: Path) -> None:
        self.now = BASE
        self.told = 0
        self.records = open_records(address("", folder))
        self.series = DuckDbSeries(folder / "series.duckdb")
        self.registry, self.incidents = Registry(self.records), Incidents(self.records)
        self.desk = self.another()

    def another(self) -> AlertDesk:
        self.desk = AlertDesk(
            RULES,
            incidents=self.incidents,
            registry=self.registry,
            series=self.series,
            now=lambda: self.now,
            told=self._heard,
        )
        self.desk.listening(True)
        return self.desk

    def _heard(self) -> None:
        self.told += 1

    def say(self, device: str, *, stored: bool = True, **fields: Any) -> None:
        payload = json.dumps({"ts": self.now, **fields}).encode()
        message = decode(f"tizhuang/v1/here/elevator/{device}/telemetry", payload, self.now)
        batch = Batch(message.readings)
        self.desk.accept(batch)
        if stored:
            self.series.write(batch)

    def open(self) -> list[tuple[str, str]]:
        return sorted((one.device_id, one.rule_id) for one in self.incidents.find(open_only=True))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.series.close()
    made.records.close()


def test_a_stranger_gets_a_ticket_too(world: World):
    world.say("stranger", **TRAPPED)
    assert world.registry.device("here.stranger").registered is False
    assert world.desk.kind_of("here.stranger") == "elevator"
    world.now += 21_000
    world.desk.tick()
    assert world.open() == [("here.stranger", "lift-entrapment-between-floors")]
    assert world.told == 1
    (letter,) = Outbox(world.records).claim("me", now=world.now)
    assert letter.payload["opened"] == BASE + 20_000


@pytest.mark.parametrize("stored", [True, False], ids=["after both stores", "between records and series"])
def test_a_kill_in_the_middle_of_the_20_seconds(world: World, stored: bool):
    world.say("lift", stored=stored, **TRAPPED)
    world.now += 10_000
    world.another()
    if not stored:
        world.now, back = BASE, world.now
        world.say("lift", **TRAPPED)
        world.now = back
    world.now += 11_100
    world.desk.tick()
    world.desk.tick()
    assert world.open() == [("here.lift", "lift-entrapment-between-floors")]
    world.another()
    world.now += 60_000
    world.say("lift", **TRAPPED)
    world.desk.tick()
    assert len(world.incidents.find()) == len(Tickets(world.records).find()) == 1
    assert [entry.action for entry in Tickets(world.records).history(1)] == ["report", "file"]


def test_records_that_are_away_lose_no_decision(world: World):
    """What the engine decided is kept and written when the database answers again; it never decides twice."""
    with world.records.write() as connection:
        connection.execute(text("ALTER TABLE outbox RENAME TO away"))  # "no such table" is an operational error
    world.say("lift", **TRAPPED)
    world.now += 21_000
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            world.desk.tick()
    assert world.open() == []
    assert world.told == 0
    with world.records.write() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO outbox"))
    world.desk.tick()
    assert world.open() == [("here.lift", "lift-entrapment-between-floors")]
    assert world.told == 1


def test_a_change_that_cannot_be_written_does_not_hold_up_the_others(world: World, capsys: pytest.CaptureFixture[str]):
    with world.records.write() as connection:
        connection.execute(
            text(
                "CREATE TRIGGER broken BEFORE INSERT ON incident WHEN NEW.device_id = 'here.cursed'"
                " BEGIN SELECT RAISE(ABORT, 'cursed'); END"
            )
        )
    for device in ("lift-1", "cursed", "lift-2"):
        world.say(device, **TRAPPED)
    world.now += 21_000
    world.desk.tick()
    assert [device for device, _ in world.open()] == ["here.lift-1", "here.lift-2"]
    printed = capsys.readouterr().out
    assert "AN ALERT IS LOST" in printed
    assert "here.cursed" in printed
    world.say("lift-3", **TRAPPED)
    world.now += 21_000
    world.desk.tick()
    assert [device for device, _ in world.open()] == ["here.lift-1", "here.lift-2", "here.lift-3"]
