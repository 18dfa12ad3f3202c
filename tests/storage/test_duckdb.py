"""The embedded driver: the contract of all drivers, and what only a file can suffer."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pytest

from core.errors import DataFolderError, StoreUnavailable
from core.reading import Batch, Reading, Value
from storage import duckdb_rollup
from storage.duckdb import FORMAT, DuckDbSeries
from storage.series import HOUR_MS, Bucket, Horizon, SeriesStore
from storage.unrolled import Unrolled
from tests.servers import ROOT
from tests.storage.rollup_contract import NOON, RollUpContract
from tests.storage.series_contract import (
    HOSTILE,
    MINUTE,
    Reopen,
    SeriesContract,
    T,
    assert_buckets,
    new_device,
    only_value,
    reading,
    window,
)
from tests.storage.series_contract import event as contract_event
from tests.storage.series_contract import write as contract_write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "series.duckdb"


class TestContract(SeriesContract, RollUpContract):
    """One file for the whole contract: opening it fifty times would be most of the time."""

    opened: SeriesStore | None = None

    @pytest.fixture(scope="class")
    @classmethod
    def reopen(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reopen]:
        path = tmp_path_factory.mktemp("contract") / "series.duckdb"

        def reopen() -> SeriesStore:
            if cls.opened is not None:
                cls.opened.close()
            cls.opened = DuckDbSeries(path)
            return cls.opened

        cls.opened = reopen()
        yield reopen
        cls.opened.close()
        cls.opened = None

    @pytest.fixture
    def store(self, reopen: Reopen) -> SeriesStore:
        assert self.opened is not None
        return self.opened


@pytest.fixture
def store(path: Path) -> Iterator[DuckDbSeries]:
    opened = DuckDbSeries(path)
    yield opened
    opened.close()


WRITER = """
import sys
from pathlib import Path
from storage.duckdb import DuckDbSeries
from tests.storage.series_contract import T, event, reading, write
store = DuckDbSeries(Path(sys.argv[1]))
for number in range(1_000_000):
    pair = [reading("s.child", T + 2 * number + half, {"floor": 1 + number % 9, "x": float(number)}) for half in (0, 1)]
    write(store, *pair, event("s.child", T + number, f"e-{number}"))
    print(number, flush=True)
"""


def test_what_write_returned_for_survives_kill_9(path: Path):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            for _ in range(30):
                said = child.stdout.readline()
                assert said, "the writer failed"
            with pytest.raises(DataFolderError, match="lock") as caught:  # one process holds the file
                DuckDbSeries(path)
            assert "\n" not in str(caught.value)
        finally:
            child.kill()
        last = int((said + child.stdout.read()).split()[-1])
    with_all = DuckDbSeries(path)
    found = with_all.window("elevator", "s.child", "", "x", start=T, end=T + 2 * last + 2, step=1)
    assert [(one.start, one.last) for one in found] == [(T + n, float(n // 2)) for n in range(2 * last + 2)]
    events = with_all.events("s.child", start=T, end=T + last + 1, limit=10**6)
    assert [one.id for one in events] == [f"e-{n}" for n in range(last, -1, -1)]
    beyond = with_all.window("elevator", "s.child", "", "x", start=T + 2 * last + 2, end=T + 10**9, step=1)
    assert len(beyond) % 2 == 0, "a batch is there as a whole or not at all"
    held = with_all.last_values(["s.child"])["s.child", ""]
    assert held.ts == T + 2 * last + 1 + len(beyond)
    with_all.close()


FULL_DISK = """
import resource, sys
from pathlib import Path
from core.errors import StoreUnavailable
from core.reading import Batch, Reading
from storage.duckdb import DuckDbSeries

def batch(ts):
    fields = {"speed_mps": 0.5, "note": "x" * 300}
    return Batch(tuple(Reading(f"s.lift-{n}", "elevator", "", ts, ts, None, fields) for n in range(2_000)))

path = Path(sys.argv[1])
store = DuckDbSeries(path)
store.write(batch(1_800_000_000_000))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
biggest = max(file.stat().st_size for file in path.parent.iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (biggest + 100_000, hard))  # from here on the disk is full
refused = 0
for _ in range(5):
    try:
        store.write(batch(1_800_000_001_000))
    except StoreUnavailable:
        refused += 1
    try:
        store.roll_up(1_800_000_000_000)
    except StoreUnavailable:
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.write(batch(1_800_000_001_000))
assert store.unrolled() == [1_800_000_000_000]
store.roll_up(1_800_000_000_000)
assert store.unrolled() == []
store.close()
print(refused)
"""


def test_a_full_disk_refuses_and_heals(path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 10
    store = DuckDbSeries(path)
    found = store.window("elevator", "s.lift-7", "", "speed_mps", start=0, end=10**15, step=1)
    assert [one.start for one in found] == [1_800_000_000_000, 1_800_000_001_000]
    found = store.window("elevator", "s.lift-7", "", "note", start=0, end=10**15, step=HOUR_MS)
    assert [one.points for one in found] == [2]
    store.close()


def test_readers_never_wait_for_a_half_written_batch(store: DuckDbSeries):
    """Every batch puts the same number into two fields of two parts; nobody ever sees them differ in length."""
    device = new_device()
    done = threading.Event()

    def write_all() -> None:
        try:
            for n in range(60):
                sent = [reading(device, T + n, {"temp_c": float(n)}, kind="charger", part=p) for p in ("1", "2")]
                contract_write(store, *sent)
        finally:
            done.set()

    def read() -> int:
        times = 0
        while not done.is_set() or times == 0:
            before = store.last_values([device])
            one = window(store, device, "temp_c", kind="charger", part="1")
            other = window(store, device, "temp_c", kind="charger", part="2")
            assert [bucket.last for bucket in one] == list(range(len(one)))
            assert len(other) >= len(one), "asked later, it holds no less"
            if before:
                assert before[device, "1"].values == before[device, "2"].values
                assert len(one) > before[device, "1"].ts - T
            store.last_seen()
            store.newest_events()
            times += 1
        return times

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        pool.submit(write_all).result()
        assert all(one.result() for one in readers)
    assert len(window(store, device, "temp_c", kind="charger", part="1")) == 60


def test_two_writers_wait_for_each_other(store: DuckDbSeries):
    devices = [new_device() for _ in range(4)]
    start = threading.Barrier(len(devices))

    def write_all(device: str) -> None:
        start.wait()
        for n in range(15):
            contract_write(store, reading(device, T + n, {"floor": 1 + n, "x": float(n)}))

    with ThreadPoolExecutor(len(devices)) as pool:
        for one in [pool.submit(write_all, device) for device in devices]:
            one.result()
    assert [len(window(store, device, "floor")) for device in devices] == [15] * len(devices)


def test_a_value_that_does_not_fit_stores_nothing_of_its_batch(store: DuckDbSeries):
    """Decoding lets no such value through; were it to, a retry would not help, and later batches go on."""
    device = new_device()
    good = reading(device, T, {"floor": 1})
    bad = reading(device, T + 1, {"floor": "three"})
    with pytest.raises((duckdb.DataError, duckdb.ProgrammingError)):
        store.write(Batch((good, bad, contract_event(device, T, "e-1"))))
    assert window(store, device, "floor") == []
    assert store.last_values([device]) == {}
    assert store.events(device, start=T, end=T + 1, limit=5) == []
    contract_write(store, good)
    assert only_value(store, device, "floor") == 1


def test_a_closed_store_says_so_and_a_retry_may_help(path: Path):
    store = DuckDbSeries(path)
    store.close()
    with pytest.raises(StoreUnavailable) as caught:
        contract_write(store, reading("s.d", T, {"floor": 1}))
    assert caught.value.retry
    with pytest.raises(StoreUnavailable):
        window(store, "s.d", "floor")


# --- roll-ups --------------------------------------------------------------------------------------------------------

ROLLER = """
import sys
from pathlib import Path
from storage.duckdb import DuckDbSeries
store = DuckDbSeries(Path(sys.argv[1]), chunk_rows=60)
for hour in store.unrolled():
    print(hour, flush=True)
    store.roll_up(hour)
print("done", flush=True)
"""


def hours_of(store: SeriesStore, devices: list[str], step: int) -> list[list[Bucket]]:
    return [
        store.window("charger", device, "1", field, start=NOON, end=NOON + 3 * HOUR_MS, step=step)
        for device in devices
        for field in ("temp_c", "state", "x")
    ]


def test_a_roll_up_that_was_killed_half_way_gives_the_same_when_it_is_done_again(path: Path):
    """Killed ever later, until it comes to its end; some rows of an hour are there then, and some are not."""
    devices = [new_device() for _ in range(40)]
    some = devices[::8]
    store = DuckDbSeries(path)
    for minute in range(0, 180, 3):
        contract_write(store, *(sample(device, NOON + minute * MINUTE) for device in devices))
    expected = {step: hours_of(store, some, step) for step in (MINUTE, HOUR_MS)}
    store.close()
    left: list[int] = []
    for patience_s in (0.01 * 1.5**n for n in range(30)):
        with subprocess.Popen([sys.executable, "-c", ROLLER, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=patience_s)
            child.kill()
        store = DuckDbSeries(path)
        for step, buckets in expected.items():
            for one, other in zip(hours_of(store, some, step), buckets, strict=True):
                assert_buckets(one, other)
        left.append(len(store.unrolled()))
        if left[-1] == 1 and 1 not in left[:-1]:  # late data in an hour that was done; it changes nothing but the mark
            contract_write(store, sample(devices[0], NOON))
        store.close()
        if left[-1] == 0:
            break
    assert left[0] == 3, "killed in the first hour"
    assert left[-1] == 0
    with duckdb.connect(str(path)) as connection:
        for table, key in (("charger_1m", "ts"), ("charger_1h", "ts"), ("extra_1m", "ts, name"), ("last_part", "kind")):
            rows = f"SELECT count(*) AS n FROM {table} GROUP BY device_id, part, {key}"
            assert connection.execute(f"SELECT max(n), count(*) > 39 FROM ({rows})").fetchall() == [(1, True)], table


def sample(device: str, ts: int) -> Reading:
    number = ts // MINUTE % 180 + len(device)
    fields = {"temp_c": number / 3, "state": ("idle", "charging")[number % 2], "x": number if number % 5 else "on"}
    return reading(device, ts, fields, kind="charger", part="1")


def test_what_is_written_during_a_roll_up_is_not_lost(path: Path):
    """Writers go on in the very hour while it is rolled up again and again; nobody sees a wrong number meanwhile."""
    store = DuckDbSeries(path, chunk_rows=20)
    devices = [new_device() for _ in range(3)]
    done = threading.Event()

    def write_all() -> None:
        try:
            for n in range(120):
                sent = [reading(device, NOON + n * 20_000, {"floor": 1, "x": 1.0}) for device in devices]
                contract_write(store, *sent, reading(devices[0], NOON - HOUR_MS + n, {"floor": 1}))
        finally:
            done.set()

    def count_points() -> None:
        known = 0
        while not done.is_set():
            found = store.window(
                "elevator", devices[0], "", "floor", start=NOON - HOUR_MS, end=NOON + HOUR_MS, step=HOUR_MS
            )
            points = [one.points for one in found]
            assert len(set(points)) <= 1, "half a batch"
            assert sum(points) >= known, "points went away"
            known = sum(points)

    def roll() -> None:
        while not done.is_set():
            for hour in store.unrolled():
                store.roll_up(hour)

    with ThreadPoolExecutor(3) as pool:
        for one in [pool.submit(work) for work in (write_all, roll, count_points)]:
            one.result()
    for hour in store.unrolled():
        store.roll_up(hour)
    assert store.unrolled() == []
    for device in devices:
        (bucket,) = store.window("elevator", device, "", "floor", start=NOON, end=NOON + HOUR_MS, step=HOUR_MS)
        assert bucket.points == 120
        (bucket,) = store.window("elevator", device, "", "x", start=NOON, end=NOON + HOUR_MS, step=HOUR_MS)
        assert (bucket.points, bucket.mean) == (120, 1.0)
    store.close()


class Interrupted(Unrolled):
    """After its first answer, before anybody can use it, something happens."""

    def __init__(self, real: Unrolled, happens: Callable[[], None]) -> None:
        super().__init__(())
        self._hours = real._hours
        self._happens: Callable[[], None] | None = happens

    def of(self, device_id: str) -> frozenset[int]:
        found = super().of(device_id)
        happens, self._happens = self._happens, None
        if happens:
            happens()
        return found


@pytest.mark.parametrize("what", ["late data", "a roll-up", "retention"])
def test_what_happens_while_a_window_is_planned(store: DuckDbSeries, what: str):
    """The window shows what was there before, or after; never half of it."""
    device = new_device()
    contract_write(store, *(reading(device, NOON + n * HOUR_MS, {"floor": 1}) for n in (0, 1)))
    store.roll_up(NOON)
    late = [reading(device, NOON + 5 + n * HOUR_MS, {"floor": 1}) for n in (0, 1)]
    happens: dict[str, Callable[[], None]] = {
        "late data": lambda: contract_write(store, *late),
        "a roll-up": lambda: store.roll_up(NOON + HOUR_MS),
        "retention": lambda: store.expire(Horizon(raw=NOON + HOUR_MS)),
    }
    store._unrolled = Interrupted(store._unrolled, happens[what])
    step = HOUR_MS if what == "late data" else 1
    found = store.window("elevator", device, "", "floor", start=NOON, end=NOON + 2 * HOUR_MS, step=step)
    assert [one.points for one in found] == ([2, 2] if what == "late data" else [1, 1])


class WrittenMeanwhile(DuckDbSeries):
    """Late data comes when the rows of a roll-up are made already."""

    late: Reading | None = None

    def _roll_chunk(self, *facts: Any) -> None:
        super()._roll_chunk(*facts)
        late, self.late = self.late, None
        if late:
            contract_write(self, late)


@pytest.mark.parametrize("same_device", [True, False])
def test_an_hour_that_is_written_to_while_it_is_rolled_up_is_still_unrolled(path: Path, same_device: bool):
    device = new_device()
    other = device if same_device else new_device()
    store = WrittenMeanwhile(path)
    contract_write(store, *(reading(one, NOON, {"floor": 1}) for one in {device, other}))
    store.late = reading(other, NOON + 1, {"floor": 1})
    store.roll_up(NOON)
    assert store.unrolled() == [NOON]

    def points() -> list[int]:
        hour = {"start": NOON, "end": NOON + HOUR_MS, "step": HOUR_MS}
        return [store.window("elevator", one, "", "floor", **hour)[0].points for one in (device, other)]

    expected = [2, 2] if same_device else [1, 2]
    assert points() == expected
    store.roll_up(NOON)
    assert store.unrolled() == []
    assert points() == expected
    store.close()


class HalfWay(Unrolled):
    """A write that has made its mark and has not stored anything waits for a roll-up to begin, which it must not."""

    def __init__(self, real: Unrolled, roll: Callable[[], None]) -> None:
        super().__init__(())
        self._hours = real._hours
        self.rolling = threading.Thread(target=roll)
        self.began = threading.Event()

    def touch(self, readings: Iterable[Reading]) -> list[int]:
        found = super().touch(readings)
        self.rolling.start()
        assert not self.began.wait(0.3)
        return found

    def begin(self, hour: int) -> frozenset[str] | None:
        self.began.set()
        return super().begin(hour)


def test_a_roll_up_begins_before_a_write_or_after_it(store: DuckDbSeries):
    device = new_device()
    contract_write(store, reading(device, NOON, {"floor": 1}))
    store._unrolled = half_way = HalfWay(store._unrolled, lambda: store.roll_up(NOON))
    contract_write(store, reading(device, NOON + 1, {"floor": 1}))
    half_way.rolling.join()
    assert store.unrolled() == []
    (bucket,) = store.window("elevator", device, "", "floor", start=NOON, end=NOON + HOUR_MS, step=HOUR_MS)
    assert bucket.points == 2


def test_a_store_that_is_closed_during_a_roll_up_ends_it(path: Path):
    store = DuckDbSeries(path, chunk_rows=1)
    contract_write(store, *(reading(new_device(), NOON + n, {"floor": 1}) for n in range(300)))
    with ThreadPoolExecutor(1) as pool:
        rolling = pool.submit(store.roll_up, NOON)
        while not store._rolling.locked() and not rolling.done():
            pass
        store.close()
        with pytest.raises(StoreUnavailable):
            rolling.result()
    store = DuckDbSeries(path)
    assert store.unrolled() == [NOON]
    store.close()


def test_heard_events_are_forgotten_once_they_are_written(store: DuckDbSeries):
    first, second = contract_event("s.lift", T, "e-1"), contract_event("s.lift", T, "e-2")
    store.heard(Batch((first, second)))
    contract_write(store, first)
    assert list(store._heard._held.values()) == [[second]]
    contract_write(store, second)
    assert not store._heard._held


def test_late_data_that_comes_while_its_hour_is_dropped(path: Path):
    """Either it is rolled up with the others or it is late crumbs; the rows of the complete hour stay."""
    store = DuckDbSeries(path)
    device = new_device()
    for n in range(50):
        contract_write(store, reading(device, NOON + n * MINUTE, {"floor": 1}))
    store.roll_up(NOON)

    def write_late() -> None:
        for n in range(1, 30):
            contract_write(store, reading(device, NOON + n, {"floor": 1}))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_late)
        while not writing.done():
            store.expire(Horizon(raw=NOON + HOUR_MS))
            store.roll_up(NOON)
        writing.result()
    store.roll_up(NOON)
    (bucket,) = store.window("elevator", device, "", "floor", start=NOON, end=NOON + HOUR_MS, step=HOUR_MS)
    assert 50 <= bucket.points <= 79
    store.close()


def test_a_write_that_failed_leaves_a_mark_that_does_no_harm(store: DuckDbSeries):
    device = new_device()
    with pytest.raises(duckdb.Error):
        contract_write(store, reading(device, NOON, {"floor": "three"}))
    contract_write(store, reading(device, NOON, {"floor": 3}))
    store.roll_up(NOON)
    assert store.unrolled() == []
    (bucket,) = store.window("elevator", device, "", "floor", start=NOON, end=NOON + HOUR_MS, step=HOUR_MS)
    assert bucket.last == 3


def test_opening_reads_what_was_saved_and_the_hours_that_are_not_rolled_up(path: Path):
    """And nothing else: raw data of rolled hours is not looked at."""
    device, other = new_device(), new_device()
    store = DuckDbSeries(path)
    contract_write(store, reading(device, NOON, {"floor": 3, "x": "a"}), reading(device, NOON, {"online": True}))
    contract_write(store, reading(other, NOON, {"temp_c": 3.0}, kind="charger", part="2"))
    store.roll_up(NOON)
    contract_write(store, reading(device, NOON + HOUR_MS, {"floor": 4}), reading(device, NOON + 1, {"door": "open"}))
    expected = store.last_values()
    store.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE elevator SET floor = 9 WHERE ts < ?", [NOON])
        connection.execute("DELETE FROM charger")
    store = DuckDbSeries(path)
    assert store.last_values() == expected
    store.close()


def test_opening_finds_the_newest_sign_of_life_in_a_sample_that_was_late(path: Path):
    device = new_device()
    store = DuckDbSeries(path)
    contract_write(store, reading(device, NOON, {"floor": 3}, rx=NOON + 5))
    store.roll_up(NOON)
    later = NOON + HOUR_MS
    contract_write(store, reading(device, later + 9, {"floor": 4}, rx=later + 10))
    contract_write(store, reading(device, later, {"floor": 2}, rx=later + 99))
    store.close()
    store = DuckDbSeries(path)
    assert store.last_values([device])[device, ""].rx == later + 99
    assert store.last_values([device])[device, ""].values["floor"] == (4, later + 9)
    store.close()


def test_a_saved_status_knows_when_it_was_received(path: Path):
    """What was received last counts, also when the other one is found in an hour that is not rolled up."""
    device = new_device()
    store = DuckDbSeries(path)
    contract_write(store, reading(device, NOON, {"online": False}, rx=NOON + 9 * HOUR_MS))
    store.roll_up(NOON)
    contract_write(store, reading(device, NOON + HOUR_MS, {"online": True}, rx=NOON + HOUR_MS))
    store.close()
    store = DuckDbSeries(path)
    assert store.last_values([device])[device, ""].values["online"] == (False, NOON)
    store.close()


def test_opening_reads_every_stretch_of_unrolled_hours(path: Path):
    devices = {hour: new_device() for hour in (0, 1, 5, 9)}
    store = DuckDbSeries(path)
    contract_write(store, *(reading(device, NOON + n * HOUR_MS, {"floor": 1}) for n, device in devices.items()))
    store.close()
    store = DuckDbSeries(path)
    assert {device for device, _ in store.last_values()} == set(devices.values())
    store.close()


def test_a_file_of_before_roll_ups_is_rolled_up(path: Path):
    device = new_device()
    store = DuckDbSeries(path)
    contract_write(store, reading(device, NOON, {"floor": 3}), reading(device, NOON + 2 * HOUR_MS, {"floor": 5}))
    expected = store.last_values()
    store.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE format SET version = 1")
        for table in ("unrolled", "horizon", "last_part", *duckdb_rollup.tables()):
            connection.execute(f"DROP TABLE {table}")
    store = DuckDbSeries(path)
    assert store.unrolled() == [NOON, NOON + 2 * HOUR_MS]
    assert store.last_values() == expected
    store.roll_up(NOON)
    store.close()
    store = DuckDbSeries(path)
    assert store.unrolled() == [NOON + 2 * HOUR_MS]
    store.close()


@pytest.mark.parametrize("value", [1e308, -1e308, 5e-324, 2**53 - 1, "x" * 1024, HOSTILE])
def test_extreme_values_can_be_rolled_up(store: DuckDbSeries, value: Value):
    device = new_device()
    contract_write(store, *(reading(device, NOON + n, {"x": value}) for n in range(3)))
    store.roll_up(NOON)
    (bucket,) = store.window("elevator", device, "", "x", start=NOON, end=NOON + HOUR_MS, step=HOUR_MS)
    assert (bucket.points, bucket.last) == (3, value)


# --- files -----------------------------------------------------------------------------------------------------------


def contents(path: Path) -> dict[str, str]:
    return {one.name: sha256(one.read_bytes()).hexdigest() for one in path.parent.iterdir()}


def refused(path: Path, told: str) -> None:
    before = contents(path)
    with pytest.raises(DataFolderError, match=told) as caught:
        DuckDbSeries(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert contents(path) == before


@pytest.mark.parametrize(("version", "told"), [(0, "an older version"), (FORMAT + 1, "a newer version")])
def test_a_file_of_another_version_is_left_as_it_is(path: Path, version: int, told: str):
    store = DuckDbSeries(path)
    contract_write(store, reading("s.d", T, {"floor": 1}))
    store.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE format SET version = ?", [version])
    refused(path, told)


def test_a_database_of_another_program_is_left_as_it_is(path: Path):
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE diary (day TEXT)")
    refused(path, "another program")


@pytest.mark.parametrize("content", [b"", b"dear diary " * 1_000, b"SQLite format 3\0" + b"\0" * 4_096])
def test_a_file_that_is_no_database_is_left_as_it_is(path: Path, content: bytes):
    path.write_bytes(content)
    refused(path, "cannot open")


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(DataFolderError, match="cannot open"):
        DuckDbSeries(tmp_path / "nowhere" / "series.duckdb")


def test_fields_that_a_newer_contract_added_become_columns(path: Path):
    """The file was written before `noise_db` and `leakage_ma` were invented."""
    device = new_device()
    store = DuckDbSeries(path)
    contract_write(store, reading(device, T, {"floor": 1}))
    store.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE elevator DROP COLUMN noise_db")
        connection.execute("ALTER TABLE charger DROP COLUMN leakage_ma")
    store = DuckDbSeries(path)
    contract_write(store, reading(device, T + MINUTE, {"noise_db": 51.0}))
    assert only_value(store, device, "floor") == 1
    assert only_value(store, device, "noise_db") == 51.0
    store.close()


def test_opening_again_keeps_the_file_small(path: Path):
    """A service that is restarted every minute must not fill the disk."""
    DuckDbSeries(path).close()
    size = path.stat().st_size
    for _ in range(5):
        DuckDbSeries(path).close()
    assert path.stat().st_size == size
