"""The worker with real stores and a source in memory: every message ends somewhere, and is acknowledged only then.

One file, because all of it shares that source and those stores.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import StoreUnavailable
from core.payload import MAX_EXTRA_FIELDS
from core.reading import Batch, Rejected
from ingest.repeats import MAX_UNKNOWN_NAMES, REMEMBERED, Repeats, UnknownFields
from ingest.spool import Spool
from ingest.storekeeper import Store, Storekeeper
from ingest.subscription import Delivery
from ingest.worker import Judge, Worker
from storage.duckdb import DuckDbSeries
from storage.quarantine import Quarantine
from storage.receipts import Receipts
from storage.records import Records, address, open_records
from storage.series import Refused
from tests.servers import wait_until

NOW = 1_790_000_000_000
LIFT = "tizhuang/v1/here/elevator/lift/telemetry"


class Queue:
    """A broker's session in memory: messages wait until they are acknowledged, and come again after `reconnect`."""

    def __init__(self) -> None:
        self.received = 0
        self.connected = True
        self.acked: list[Delivery] = []
        self._fresh: deque[Delivery] = deque()
        self._unacked: list[Delivery] = []
        self._mids = 0

    def put(self, topic: str, payload: object, *, rx: int = NOW, repeated: bool = False) -> None:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._mids += 1
        self._fresh.append(Delivery(topic, body, rx, False, repeated, self._mids, 1, 1))

    def take(self, at_most: int, *, wait_s: float = 0, linger_s: float = 0) -> list[Delivery]:
        taken = [self._fresh.popleft() for _ in range(min(at_most, len(self._fresh)))]
        self._unacked += taken
        self.received += len(taken)
        return taken

    def ack(self, deliveries: Sequence[Delivery]) -> int:
        self._unacked = [one for one in self._unacked if one not in deliveries]
        self.acked += deliveries
        return len(deliveries)

    def reconnect(self, *, later_ms: int) -> None:
        """What was not acknowledged comes again, marked as a repeat, at a later time."""
        self._fresh.extend(one._replace(repeated=True, rx=one.rx + later_ms) for one in self._unacked)
        self._unacked = []


class Court:
    """A judge that has nothing to say, and fails as it is told: so many times, or whenever a device is in the batch."""

    def __init__(self, *, failures: int = 0, poison: str = "") -> None:
        self.failures = failures
        self.poison = poison
        self.asked = 0

    def accept(self, batch: Batch) -> None:
        self.asked += 1
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the database is away")
        if any(item.device_id == self.poison for item in batch.items):
            raise ZeroDivisionError("a bug of ours")


class Bench:
    """A worker with its source and stores; `again` is the next life of the process."""

    def __init__(self, folder: Path, records: Records, series: DuckDbSeries) -> None:
        self.folder, self.records, self.series = folder, records, series
        self.queue = Queue()
        self.quarantine = Quarantine(records)
        self.worker = self.again()

    def again(
        self,
        judge: Judge | None = None,
        *,
        store: Store | None = None,
        kind_of: Callable[[str], str | None] = lambda _: None,
    ) -> Worker:
        self.queue.received = 0
        unknown = UnknownFields()
        self.keeper = Storekeeper(
            store or self.series,
            Spool(self.folder / "spool", 10_000_000),
            self.quarantine,
            self.queue.ack,
            limited=unknown.limit,
        )
        self.worker = Worker(
            self.queue,
            judge or Court(),
            self.keeper,
            self.quarantine,
            Receipts(self.records),
            unknown,
            kind_of=kind_of,
        )
        return self.worker

    def settle(self, at_most: int = 500) -> None:
        while taken := self.queue.take(at_most):
            self.worker.settle(taken)
            self.store_all()

    def store_all(self) -> None:
        """What the storekeeper's thread does, here and now."""
        for _ in range(100):
            stats = self.worker.stats()
            if not stats.in_flight and not stats.spooled:
                return
            self.keeper.work()
        raise AssertionError("the storekeeper does not come to an end")

    def points(self, device_id: str = "here.lift", kind: str = "elevator", field: str = "floor") -> int:
        """How many points of a field the store holds."""
        return sum(
            bucket.points
            for bucket in self.series.window(kind, device_id, "", field, start=0, end=NOW * 2, step=86_400_000)
        )

    def reasons(self) -> list[str]:
        return [row.reason for row in self.quarantine.find()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    records = open_records(address("", tmp_path))
    series = DuckDbSeries(tmp_path / "series.duckdb")
    yield Bench(tmp_path, records, series)
    series.close()
    records.close()


def test_good_and_bad_messages_in_one_batch(bench: Bench):
    bench.queue.put(LIFT, {"ts": NOW, "floor": 3})
    bench.queue.put(LIFT, b"not json")
    bench.queue.put(LIFT, {"ts": NOW, "floor": 3})
    bench.queue.put(LIFT, {"ts": NOW + 1, "floor": 4})
    bench.settle()
    stats = bench.worker.stats()
    assert (stats.received, stats.stored, stats.duplicate, stats.quarantined) == (4, 2, 1, 1)
    assert (stats.acked, stats.in_flight, stats.readings) == (4, 0, 2)
    assert bench.points() == 2
    assert bench.reasons()[0].startswith("not JSON")


def test_nothing_is_acknowledged_before_it_is_judged_and_stored(bench: Bench):
    seen: list[tuple[str, int, int]] = []

    class Watching(Court):
        def accept(self, batch: Batch) -> None:
            seen.append(("judged", len(bench.queue.acked), bench.worker.stats().in_flight))
            super().accept(batch)

    class Writing(DuckDbSeries):
        def write(self, batch: Batch) -> list[Refused]:
            seen.append(("written", len(bench.queue.acked), bench.worker.stats().in_flight))
            return super().write(batch)

    bench.series.close()
    bench.series = Writing(bench.folder / "series.duckdb")
    bench.again(Watching(failures=2))
    bench.queue.put(LIFT, {"ts": NOW, "floor": 3})
    bench.worker.settle(bench.queue.take(1))
    assert bench.queue.acked == [], "handed over is not stored"
    bench.store_all()
    assert seen == [("judged", 0, 1), ("judged", 0, 1), ("judged", 0, 1), ("written", 0, 1)]
    assert (len(bench.queue.acked), bench.worker.stats().blocked_by) == (1, "")
    bench.series.close()


def test_a_database_that_stays_away_holds_all_up_until_we_are_told_to_stop(bench: Bench):
    worker = bench.again(Court(failures=1_000_000))
    bench.queue.put(LIFT, {"ts": NOW, "floor": 3})
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    wait_until("blocked", lambda: worker.stats().blocked_by)
    assert worker.stats().blocked_by == "the database is away"
    assert worker.stats().in_flight == 1
    stop.set()
    thread.join(2)
    assert not thread.is_alive()
    assert bench.queue.acked == []
    bench.queue.reconnect(later_ms=1)
    bench.again()
    bench.settle()
    assert (bench.points(), len(bench.queue.acked)) == (1, 1)


def test_a_quarantine_that_is_away_is_waited_for(bench: Bench):
    class Shy(Quarantine):
        failures = 1

        def keep(self, rejected: Sequence[Rejected]) -> None:
            if self.failures:
                self.failures -= 1
                raise StoreUnavailable("not now")
            super().keep(rejected)

    bench.quarantine = Shy(bench.records)
    bench.again()
    bench.queue.put(LIFT, b"{")
    bench.settle()
    assert (bench.quarantine.totals(), len(bench.queue.acked)) == ((1, 1), 1)


def test_one_poison_message_is_parked_and_the_rest_goes_on(bench: Bench):
    """In the batch of a hundred others; what the judge had already accepted of it is harmless to accept again."""
    bench.again(Court(poison="here.poison"))
    for number in range(100):
        device = "poison" if number == 50 else "lift"
        bench.queue.put(LIFT.replace("/lift/", f"/{device}/"), {"ts": NOW + number, "floor": 3})
    bench.settle()
    stats = bench.worker.stats()
    assert (stats.stored, stats.quarantined, stats.acked, stats.in_flight) == (99, 1, 100, 0)
    (row,) = bench.quarantine.find()
    assert row.topic == LIFT.replace("/lift/", "/poison/")
    assert "ZeroDivisionError('a bug of ours')" in row.reason
    assert bench.points() == 99
    bench.queue.put(LIFT, {"ts": NOW + 1_000, "floor": 3})
    bench.settle()
    assert bench.points() == 100


# --- repeats ----------------------------------------------------------------------------------------------------------


def test_a_redelivery_after_a_restart_lands_on_its_own_point(bench: Bench):
    bench.queue.put(LIFT, {"ts": NOW, "floor": 3})
    bench.settle()
    bench.queue.put(LIFT, {"ts": NOW, "floor": 3}, rx=NOW + 5_000, repeated=True)
    bench.again()
    bench.settle()
    assert bench.worker.stats().stored == 1, "this life has not seen it"
    assert bench.points() == 1


TIMES = {"1970": 0, "a day later": 86_400_000, "just too far ahead": NOW + 300_001, "2099": 4_070_908_800_000}


@pytest.mark.parametrize("ts", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("more", [{}, {"seq": 7}], ids=["no seq", "seq"])
def test_a_redelivery_without_a_clock_lands_on_its_own_point_too(bench: Bench, ts: int, more: dict[str, Any]):
    class Deaf(Queue):
        def ack(self, deliveries: Sequence[Delivery]) -> int:
            return 0

    bench.queue = Deaf()
    bench.again()
    bench.queue.put(LIFT, {"ts": ts, "floor": 3, **more})
    bench.settle()
    bench.queue.reconnect(later_ms=60_000)
    bench.again()
    bench.settle()
    assert bench.worker.stats().clockless == 1
    assert bench.points() == 1


def test_the_same_words_twice_without_a_clock_are_two_points(bench: Bench):
    """No sequence number and no mark of the broker: a device that stands still says the same again."""
    for rx in (NOW, NOW + 1_000):
        bench.queue.put(LIFT, {"ts": 0, "floor": 3}, rx=rx)
    bench.settle()
    assert bench.points() == 2


def test_messages_without_a_clock_that_come_at_once_are_points_of_their_own(bench: Bench):
    """Single ones and backlogs, in one batch and in several; in the order in which they came."""
    for number in range(3):
        bench.queue.put(LIFT, {"ts": 0, "floor": 1 + number, "seq": number})
        bench.queue.put(LIFT, [{"ts": ts, "floor": 10 + number, "seq": 10 + 3 * number + ts} for ts in range(3)])
    bench.settle(at_most=2)
    assert bench.points() == 12
    assert bench.series.last_values()["here.lift", ""].values["floor"].value == 12


def test_repeats_are_remembered_within_bounds():
    repeats = Repeats()
    assert not repeats.is_repeat("t", b"0")
    for number in range(1, REMEMBERED):
        assert not repeats.is_repeat("t", str(number).encode())
    assert repeats.is_repeat("t", b"0")
    assert not repeats.is_repeat("u", b"0"), "on another topic it is another message"
    assert not repeats.is_repeat("t", b"1"), "forgotten: 0 was asked for since, 1 was not"


# --- strangers --------------------------------------------------------------------------------------------------------


def test_a_device_that_speaks_as_another_kind_is_not_believed(bench: Bench):
    bench.again(kind_of={"here.pile": "charger"}.get)
    bench.queue.put("tizhuang/v1/here/elevator/pile/telemetry", {"ts": NOW, "floor": 3})
    bench.queue.put(LIFT, {"ts": NOW, "floor": 3})
    bench.queue.put("tizhuang/v1/here/charger/lift/telemetry", {"ts": NOW})
    bench.queue.put(LIFT, {"ts": NOW + 1, "floor": 3})
    bench.settle()
    assert bench.worker.stats().stored == 2
    assert sorted(bench.reasons()) == [
        "topic.kind: device 'here.lift' is known as 'elevator'",
        "topic.kind: device 'here.pile' is known as 'charger'",
    ]


def test_a_stranger_is_believed_again_once_the_register_knows_better(bench: Bench):
    register: dict[str, str] = {}
    bench.again(kind_of=register.get)
    bench.queue.put(LIFT.replace("elevator", "charger"), {"ts": NOW, "voltage_v": 220.0})
    bench.settle()
    register["here.lift"] = "elevator"
    bench.queue.put(LIFT, {"ts": NOW, "floor": 3})
    bench.settle()
    assert bench.points() == 1
    assert bench.reasons() == []


def test_a_bug_of_ours_parks_the_message_and_the_rest_goes_on(bench: Bench):
    def trips_over(device_id: str) -> str | None:
        return str(1 / 0) if device_id == "here.unlucky" else None

    bench.again(kind_of=trips_over)
    bench.queue.put(LIFT.replace("/lift/", "/unlucky/"), {"ts": NOW, "floor": 1})
    bench.queue.put(LIFT, {"ts": NOW, "floor": 3})
    bench.settle()
    assert bench.points() == 1
    assert bench.reasons() == ["could not be processed (please report this): ZeroDivisionError('division by zero')"]
    assert len(bench.queue.acked) == 2


def test_a_million_unknown_fields_stay_within_bounds(bench: Bench):
    per_message, messages = 2_000, 500
    for number in range(messages):
        names = range(number * per_message, (number + 1) * per_message)
        bench.queue.put(LIFT, {"ts": NOW + number, "floor": 3, **{f"x{name}": 1 for name in names}})
    bench.settle(at_most=50)
    stats = bench.worker.stats()
    assert (stats.stored, stats.quarantined) == (messages, 0)
    assert stats.unknown_fields == MAX_UNKNOWN_NAMES
    assert stats.unknown_fields_dropped == per_message * messages - MAX_UNKNOWN_NAMES
    (values,) = bench.series.last_values().values()
    assert len(values.values) <= MAX_UNKNOWN_NAMES + 1
    assert bench.points() == messages


def test_unknown_fields_of_a_message_without_a_clock_are_bounded_as_well(bench: Bench):
    for life in range(2):
        bench.again()
        for number in range(MAX_UNKNOWN_NAMES // MAX_EXTRA_FIELDS + 5):
            fields = {f"x{number}-{name}": 1 for name in range(MAX_EXTRA_FIELDS)}
            bench.queue.put(LIFT, {"ts": 0, "seq": number, **fields}, rx=NOW + life, repeated=bool(life))
        bench.settle()
    (values,) = bench.series.last_values().values()
    assert len(values.values) == MAX_UNKNOWN_NAMES


# --- conservation -----------------------------------------------------------------------------------------------------

good = st.builds(lambda ts, floor: (LIFT, {"ts": NOW + ts, "floor": floor}), st.integers(0, 5), st.integers(1, 3))
clockless = st.builds(lambda seq: (LIFT, {"ts": 0, "floor": 1, **seq}), st.sampled_from([{}, {"seq": 1}, {"seq": 2}]))
backlog = st.builds(lambda n: (LIFT, [{"ts": NOW + i, "floor": 1} for i in range(n)]), st.integers(0, 3))
poison = st.just((LIFT.replace("/lift/", "/poison/"), {"ts": NOW, "floor": 1}))
event = st.builds(
    lambda code: (
        "tizhuang/v1/here/elevator/lift/event",
        {"id": f"e{code}", "ts": NOW, "code": code, "table": "gbt24476", "state": "raised"},
    ),
    st.sampled_from(["1", "4", "999"]),
)
bad = st.sampled_from(
    [
        (LIFT, b"\xff"),
        (LIFT, {"ts": NOW, "floor": "three"}),
        (LIFT.replace("elevator", "rocket"), {"ts": NOW}),
        ("tizhuang/v1/here", b""),
        ("tizhuang/v1/here/charger/lift/telemetry", {"ts": NOW}),
    ]
)
mixes = st.lists(st.tuples(st.one_of(good, good, clockless, backlog, poison, event, bad), st.booleans()), max_size=25)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(mixes, st.integers(1, 10), st.integers(0, 25))
def test_every_message_ends_somewhere(bench: Bench, mix: list[Any], size: int, dies_after: int):
    """Over two lives: what the first left unacknowledged comes again in the second. Nothing is lost, all is counted."""
    rows = bench.quarantine.totals()[1]
    bench.queue = Queue()
    bench.again(Court(poison="here.poison"), kind_of={"here.lift": "elevator"}.get)
    for number, ((topic, payload), repeated) in enumerate(mix):
        bench.queue.put(topic, payload, rx=NOW + number, repeated=repeated)
    done = 0
    while done < dies_after and (taken := bench.queue.take(size)):
        bench.worker.settle(taken)
        bench.store_all()
        done += len(taken)
    lost = bench.queue.take(size)  # taken, and never settled: the process dies here
    first = bench.worker.stats()
    assert first.stored + first.duplicate + first.quarantined == done
    assert first.in_flight == len(lost)
    assert first.acked == done == len(bench.queue.acked)
    bench.queue.reconnect(later_ms=1_000)
    bench.again(Court(poison="here.poison"), kind_of={"here.lift": "elevator"}.get)
    bench.settle(size)
    second = bench.worker.stats()
    assert second.stored + second.duplicate + second.quarantined == second.received == len(mix) - done
    assert (second.in_flight, len(bench.queue.acked)) == (0, len(mix))
    assert bench.quarantine.totals()[1] - rows == first.quarantined + second.quarantined
    wanted = {payload["ts"] for (topic, payload), _ in mix if topic == LIFT and _is_good(payload)}
    for ts in wanted:
        found = bench.series.window("elevator", "here.lift", "", "floor", start=ts, end=ts + 1, step=1)
        assert [bucket.points for bucket in found] == [1]


def _is_good(payload: Any) -> bool:
    return isinstance(payload, dict) and isinstance(payload["floor"], int) and int(payload["ts"]) >= NOW
