"""Two engines on one database: whatever both write at the same moment, one fault is one incident and one ticket.

Real processes, started afresh, on one SQLite file and on one PostgreSQL. What they leave must be what one process
alone leaves.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Any, Literal, TypeVar

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import IntegrityError

from core.errors import StoreUnavailable
from core.incident import Change
from storage import tables, turns
from storage.incidents import Incidents
from storage.outbox import Outbox
from storage.records import Records, address, open_records
from storage.register_file import checked
from storage.registry import Registry
from storage.tickets import Tickets
from tests.storage.changes import change
from tests.storage.conftest import NEIGHBOURHOOD

SPAWN = multiprocessing.get_context("spawn")
Answer = TypeVar("Answer")
FAULTS = 6
R = 600_000


@pytest.fixture
def url(any_url: str) -> str:
    return any_url


# --- what the processes do -------------------------------------------------------------------------------------------


def course() -> list[Change]:
    """Many faults that begin, join, end, come back and end again."""
    found: list[Change] = []
    steps: list[tuple[Literal["none", "raise", "ease", "clear"], str]] = [
        ("none", "a"), ("raise", "a"), ("raise", "b"), ("ease", "b"), ("clear", "b"), ("raise", "a"), ("clear", "a"),
    ]  # fmt: skip
    for at, (effect, rule) in enumerate(steps):
        for number in range(FAULTS):
            device = "here.*" if number == 0 else ("here.lift", "here.pile")[number % 2]
            found.append(
                change(
                    effect,
                    1_000 * at + number,
                    device=device,
                    rule=f"{rule}{number}",
                    group=f"g{number}",
                    severity="P1",
                    now_severity="P3" if effect == "ease" else None,
                    close="telemetry",
                    reopen_ms=R if number % 2 else 0,
                )
            )
    return found


def patiently(act: Callable[[], Answer]) -> Answer:
    """As the alert desk and the postman do: a database that is busy for too long is asked again."""
    while True:
        with suppress(StoreUnavailable):
            return act()


def engine(url: str, start: Barrier, size: int) -> None:
    """One engine: the whole course, so many changes in a transaction."""
    records = open_records(url)
    incidents = Incidents(records)
    start.wait(60)
    for some in turns.batched(course(), size):
        patiently(partial(incidents.apply, some, now=5_000))
    records.close()


def raiser(url: str, start: Barrier, number: int) -> None:
    """An engine with rules of its own, on faults of its own and on those of the other."""
    records = open_records(url)
    incidents = Incidents(records)
    start.wait(60)
    for step in range(60):
        group = f"g{step}" if step % 2 else f"own{number}-{step}"
        raised = change("raise", step, rule=f"r{number}-{step}", group=group)
        patiently(partial(incidents.apply, [raised], now=step))
    records.close()


def teller(url: str, start: Barrier, number: int) -> None:
    """Takes letters in small lots and settles them, until there are none."""
    records = open_records(url)
    outbox = Outbox(records)
    start.wait(60)
    while letters := patiently(partial(outbox.claim, f"p{number}", now=9_000, limit=3)):
        for letter in letters:
            patiently(partial(outbox.sent, letter.id, now=9_000))
    records.close()


def together(url: str, target: Callable[[str, Barrier, int], None], numbers: Sequence[int]) -> Iterator[int]:
    """Runs the processes at the same time; yields how many still run, again and again. All must end well."""
    start = SPAWN.Barrier(len(numbers))
    children = [SPAWN.Process(target=target, args=(url, start, number)) for number in numbers]
    for child in children:
        child.start()
    try:
        while running := sum(child.is_alive() for child in children):
            yield running
            children[0].join(0.005)
    finally:
        for child in children:
            child.join(60)
            if child.is_alive():
                child.kill()
    assert [child.exitcode for child in children] == [0] * len(children)


def run(url: str, target: Callable[[str, Barrier, int], None], numbers: Sequence[int]) -> None:
    for _ in together(url, target, numbers):
        pass


# --- what they leave -------------------------------------------------------------------------------------------------


def books(records: Records) -> dict[str, Any]:
    """Everything that may not depend on who was first: numbers and the order of different faults do."""
    incidents, tickets = Incidents(records).find(limit=500), Tickets(records)
    owned = {one.incident_id: one for one in tickets.find(limit=500)}
    with records.read() as connection:
        letters = connection.execute(select(tables.outbox).order_by(tables.outbox.c.id)).all()
    number = {one.id: (one.fault_group, one.opened_device_ms) for one in incidents}
    return {
        "incidents": sorted(
            (
                *number[one.id],
                one.severity,
                one.reopened,
                one.cleared_device_ms,
                one.outcome,
                one.previous_id and number[one.previous_id],
                [(line.action, line.device_ms, line.to_state) for line in tickets.history(owned[one.id].id)],
                [letter.kind for letter in letters if letter.incident_id == one.id],
            )
            for one in incidents
        ),
        "states": sorted(
            (row["rule_id"], row["state"], row["changed_device_ms"]) for row in Incidents(records).rule_states()
        ),
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one engine alone leaves."""
    records = open_records(address("", tmp_path_factory.mktemp("alone")))
    Registry(records).register(checked(NEIGHBOURHOOD), now=1)
    Incidents(records).apply(course(), now=5_000)
    found = books(records)
    records.close()
    return found


def test_the_course_has_what_it_is_to_have(alone):
    assert len(alone["incidents"]) == FAULTS + FAULTS // 2, "half of them open again, half are new"
    assert {line[5] for line in alone["incidents"]} == {"recovered"}


@pytest.mark.parametrize("sizes", [(1, 1), (1, 50), (4, 7)], ids=str)
def test_the_same_changes_from_both_are_one(url, records, alone, sizes):
    run(url, engine, sizes)
    assert books(records) == alone


def test_different_rules_on_the_same_faults_share_them(url, records):
    run(url, raiser, (1, 2))
    incidents = Incidents(records).find(limit=500)
    assert len(incidents) == len({one.fault_group for one in incidents}) == 30 + 2 * 30
    assert len(Tickets(records).find(limit=500)) == len(incidents)
    assert sum(line.action == "joined" for line in Tickets(records).news_after(0)) == 30


def test_live_pages_miss_nothing(url, records):
    """Change numbers become visible in their order: who follows them by the newest one sees them all."""
    tickets = Tickets(records)
    seen: list[int] = []
    for _ in together(url, raiser, (1, 2, 3)):
        seen += [line.id for line in tickets.news_after(max(seen, default=0))]
    while more := [line.id for line in tickets.news_after(max(seen, default=0))]:
        seen += more
    with records.read() as connection:
        written = connection.execute(select(tables.ticket_history.c.id).order_by(tables.ticket_history.c.id)).scalars()
        assert seen == list(written)


def test_two_who_tell_never_tell_the_same(url, records):
    Incidents(records).apply(
        [change("raise", number, group=f"g{number}", rule=f"r{number}") for number in range(60)], now=5_000
    )
    run(url, teller, (1, 2, 3))
    with records.read() as connection:
        rows = connection.execute(select(tables.outbox.c.attempts, tables.outbox.c.sent)).all()
    assert [tuple(row) for row in rows] == [(1, 9_000)] * 60


# --- when they clash -------------------------------------------------------------------------------------------------


def test_who_lost_a_race_looks_again(records):
    """A writer that takes no turn, as an older version: the index refuses the second open incident."""
    Incidents(records).apply([change("raise", 1_000)], now=5_000)
    tries = []

    def insert() -> str:
        tries.append(1)
        with records.write() as connection:
            row = connection.execute(select(tables.incident)).mappings().one()
            if len(tries) == 1:
                connection.execute(tables.incident.insert().values({**row, "id": 2}))
        return "joined"

    assert turns.again_after_clash(insert) == "joined"
    assert len(tries) == 2


def test_what_is_no_clash_is_not_tried_again(records):
    tries = []

    def insert() -> None:
        tries.append(1)
        with records.write() as connection:
            connection.execute(tables.ticket.insert().values(incident_id=99, state="filed", created=1, changed=1))

    with pytest.raises(IntegrityError):
        turns.again_after_clash(insert)
    assert len(tries) == 1


@pytest.mark.real("postgresql")
def test_who_waits_too_long_is_told_to_come_again(shared_url, monkeypatch):
    monkeypatch.setattr(turns, "WAIT_MS", 50)
    other, records = create_engine(shared_url), open_records(shared_url)
    try:
        with other.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": turns.HISTORY_LOCK})
            with pytest.raises(StoreUnavailable, match="lock timeout"):
                Incidents(records).apply([change("none", 1_000)], now=5_000)
        Incidents(records).apply([change("none", 1_000)], now=5_000)
    finally:
        records.close()
        other.dispose()
