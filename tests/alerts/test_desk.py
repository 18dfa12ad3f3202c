"""The engine at work on real stores: what it is told of our own deafness, and what it remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alerts.desk import CATCH_UP_MS, AlertDesk
from alerts.rules import parse_rules
from core.reading import Batch, Reading
from storage.duckdb import DuckDbSeries
from storage.incidents import Incidents
from storage.records import Records, address, open_records
from storage.registry import Registry

START = 1_790_000_000_000
SILENT_MS = 60_000
RULES = parse_rules(
    "kind: elevator\nrules:\n"
    "  - {id: silent, group: offline, severity: P4, title: {zh: 无数据, en: silent}, silence: 60s, close: telemetry}\n"
    "  - {id: trapped, group: entrapment, severity: P0, title: {zh: 困人, en: trapped}, when: occupied, for: 10s}\n",
    "test.yaml",
)


class Time:
    """The wall clock of a test, Unix ms."""

    def __init__(self) -> None:
        self.ms = START

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = open_records(address("", tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def desk(tmp_path: Path, records: Records, clock: Time) -> Iterator[Callable[[], AlertDesk]]:
    """Makes a desk, as every start of the process does."""
    series = DuckDbSeries(tmp_path / "series.duckdb")
    yield lambda: AlertDesk(RULES, incidents=Incidents(records), registry=Registry(records), series=series, now=clock)
    series.close()


def lift(clock: Time, **fields: bool) -> Batch:
    return Batch((Reading("here.lift", "elevator", "", clock.ms, clock.ms, None, fields),))


def opened(records: Records) -> list[str]:
    return [incident.rule_id for incident in Incidents(records).find()]


def wait(desk: AlertDesk, clock: Time, ms: int) -> None:
    clock.ms += ms
    desk.tick()


def test_silence_is_the_devices_and_not_ours(desk: Callable[[], AlertDesk], records: Records, clock: Time) -> None:
    """A stuck database makes us deaf as a lost broker does: nobody is called silent for that time."""
    it = desk()
    it.listening(True)
    it.accept(lift(clock, moving=False))
    for deaf, hearing in ((it.listening, it.listening), (it.flowing, it.flowing)):
        deaf(False)
        wait(it, clock, 3 * SILENT_MS)
        hearing(True)
        wait(it, clock, SILENT_MS - 1)
        assert opened(records) == []
    wait(it, clock, 1)
    assert opened(records) == ["silent"]


def test_connected_is_not_hearing_while_the_worker_is_held_up(
    desk: Callable[[], AlertDesk], records: Records, clock: Time
) -> None:
    it = desk()
    it.listening(True)
    it.accept(lift(clock, moving=False))
    it.flowing(False)
    it.listening(False)
    it.listening(True)  # the broker is back, the database is not
    wait(it, clock, 3 * SILENT_MS)
    assert opened(records) == []


def test_a_pending_rule_first_hears_what_queued_up_at_the_broker(
    desk: Callable[[], AlertDesk], records: Records, clock: Time
) -> None:
    """Killed while pending; the sample that resets the rule waits at a broker that answers late."""
    desk().accept(lift(clock, occupied=True))
    clock.ms += 3_000
    reset = lift(clock, occupied=False)
    clock.ms += 20_000
    it = desk()
    wait(it, clock, 20_000)
    it.listening(True)
    wait(it, clock, CATCH_UP_MS - 1)
    it.accept(reset)
    wait(it, clock, 60_000)
    assert "trapped" not in opened(records)


def test_after_a_start_without_a_broker_a_pending_rule_fires_within_a_minute(
    desk: Callable[[], AlertDesk], records: Records, clock: Time
) -> None:
    desk().accept(lift(clock, occupied=True))
    it = desk()
    wait(it, clock, 59_999)
    assert opened(records) == []
    wait(it, clock, 1)
    assert opened(records) == ["trapped"]
    assert Incidents(records).find()[0].opened_device_ms == START + 10_000


def test_an_alert_that_cannot_be_written_is_counted_and_holds_up_no_other(
    desk: Callable[[], AlertDesk], records: Records, clock: Time
) -> None:
    """The database itself refuses one device's incident, and with it the transaction that holds the others."""
    it = desk()
    with records.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON incident WHEN NEW.device_id = 'here.refused' "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    names = ("here.first", "here.refused", "here.last")
    it.accept(Batch(tuple(Reading(n, "elevator", "", clock.ms, clock.ms, None, {"occupied": True}) for n in names)))
    clock.ms += 10_000
    still = tuple(Reading(n, "elevator", "", clock.ms, clock.ms, None, {"occupied": True}) for n in names)
    it.accept(Batch(still))
    assert {incident.device_id for incident in Incidents(records).find()} == {"here.first", "here.last"}
    assert it.alerts_lost == 1
