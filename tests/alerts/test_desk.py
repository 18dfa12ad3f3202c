"""The engine at work on real stores: what it is told of our own deafness, and what it remembers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alerts.desk import CATCH_UP_MS, AlertDesk
from alerts.rulebook import RuleBook, parse_rules
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


# --- windows after a start, and rules that are edited while we run -------------------------------------------------

DOOR = "kind: elevator\nrules:\n  - {id: door, group: door, severity: P3, title: {zh: 门, en: door}, "
COUNTING = parse_rules(DOOR + "when: 'count(door == \"open\", 60s) >= 3'}\n", "test.yaml")


def door(clock: Time, state: str) -> Batch:
    return Batch((Reading("here.lift", "elevator", "", clock.ms, clock.ms, None, {"door": state}),))


@pytest.mark.parametrize(
    ("away_s", "again", "expected"),
    [
        (0, "open", ["door"]),
        (0, "closed", []),
        (30, "open", ["door"]),
        (58, "open", []),  # the first opening has left the window by then
    ],
)
def test_a_window_goes_on_after_a_restart(
    tmp_path: Path, records: Records, clock: Time, away_s: int, again: str, expected: list[str]
) -> None:
    series = DuckDbSeries(tmp_path / "series.duckdb")

    def start() -> AlertDesk:
        return AlertDesk(COUNTING, incidents=Incidents(records), registry=Registry(records), series=series, now=clock)

    it = start()
    for state in ("open", "closed", "open", "closed"):
        batch = door(clock, state)
        it.accept(batch)
        series.write(batch)
        clock.ms += 1_000
    clock.ms += away_s * 1_000
    it = start()
    it.accept(door(clock, "closed"))
    clock.ms += 1_000
    it.read_back(threading.Event())
    it.accept(door(clock, again))
    assert opened(records) == expected
    series.close()


def edited(text: str) -> Callable[[str], RuleBook | None]:
    book = parse_rules(text, "test.yaml")
    return lambda known: None if known == book.digest else book


@pytest.mark.parametrize(
    ("text", "outcome", "reason"),
    [
        (DOOR + 'when: door == "closed"}\n', None, "rule-changed"),
        (DOOR.replace("id: door", "id: gate") + 'when: door == "open"}\n', "rule_deleted", "rule-deleted"),
        (DOOR + 'when: door == "open" or door == "opening"}\n', None, ""),
    ],
)
def test_rules_that_are_edited_while_we_run(
    tmp_path: Path, records: Records, clock: Time, text: str, outcome: str | None, reason: str
) -> None:
    series = DuckDbSeries(tmp_path / "series.duckdb")
    it = AlertDesk(
        parse_rules(DOOR + 'when: door == "open"}\n', "test.yaml"),
        incidents=Incidents(records),
        registry=Registry(records),
        series=series,
        now=clock,
        newer_rules=edited(text),
    )
    it.accept(door(clock, "open"))
    it.refresh_rules()
    found = Incidents(records).find()[-1]
    assert (found.outcome, found.reason) == (outcome, reason)
    assert (found.cleared_device_ms is None) == (reason == "")
    assert it.book.digest == parse_rules(text, "test.yaml").digest
    series.close()


def test_rule_files_with_a_fault_change_nothing_and_are_named(tmp_path: Path, records: Records, clock: Time) -> None:
    def broken(_known: str) -> RuleBook | None:
        return parse_rules(DOOR + "when: dor}\n", "mine.yaml")

    series = DuckDbSeries(tmp_path / "series.duckdb")
    it = AlertDesk(
        COUNTING,
        incidents=Incidents(records),
        registry=Registry(records),
        series=series,
        now=clock,
        newer_rules=broken,
    )
    it.refresh_rules()
    assert it.book is COUNTING
    assert "mine.yaml:3" in it.rules_refused
    assert "did you mean 'door'" in it.rules_refused
    series.close()
