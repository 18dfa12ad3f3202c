"""Which rows answer a window, how answers are joined, where horizons stand, and the job: all without a database."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import StoreUnavailable
from core.reading import Value
from core.settings import Series
from storage.rollup import Partial, Resolution, advanced, merge, plan, step_of
from storage.rollup_job import GRACE_MS, RollUpJob
from storage.series import HOUR_MS, MINUTE_MS, Bucket, Horizon
from storage.unrolled import MANY, Unrolled
from tests.storage.series_contract import Naive, assert_buckets, reading

RAW, MINUTE, HOUR = Resolution
H = HOUR_MS
M = MINUTE_MS
NOTHING_DROPPED = Horizon()


# --- plan ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((0, 3 * H, H), [(0, 3 * H, HOUR)]),
        ((0, 3 * H, 5 * M), [(0, 3 * H, MINUTE)]),
        ((0, 3 * H, 1_000), [(0, 3 * H, RAW)]),
        ((0, 3 * H, 90_000), [(0, 3 * H, RAW)]),
        ((0, 3 * H, 90 * M), [(0, 3 * H, MINUTE)]),
        ((10, 3 * H, H), [(10, M, RAW), (M, H, MINUTE), (H, 3 * H, HOUR)]),
        ((0, 3 * H + M + 1, H), [(0, 3 * H, HOUR), (3 * H, 3 * H + M, MINUTE), (3 * H + M, 3 * H + M + 1, RAW)]),
        ((10, M - 10, H), [(10, M - 10, RAW)]),
        ((5 * M, 7 * M, H), [(5 * M, 7 * M, MINUTE)]),
        ((5, 5, H), []),
        ((6, 5, H), []),
    ],
)
def test_whole_rows_that_divide_the_step(window: tuple[int, int, int], expected: list[tuple[int, int, Resolution]]):
    assert plan(*window, unrolled=(), horizon=NOTHING_DROPPED) == expected


def test_unrolled_hours_are_read_raw():
    assert plan(0, 5 * H, H, unrolled={H, 2 * H, 9 * H}, horizon=NOTHING_DROPPED) == [
        (0, H, HOUR),
        (H, 3 * H, RAW),
        (3 * H, 5 * H, HOUR),
    ]
    assert plan(H + 5, 2 * H - 5, M, unrolled={H}, horizon=NOTHING_DROPPED) == [(H + 5, 2 * H - 5, RAW)]


def test_before_the_horizon_the_rows_that_are_left():
    horizon = Horizon(raw=4 * H, minute=2 * H)
    assert plan(5, 6 * H, 1, unrolled=(), horizon=horizon) == [
        (0, 2 * H, HOUR),
        (2 * H, 4 * H, MINUTE),
        (4 * H, 6 * H, RAW),
    ]
    assert plan(3 * H + 5, 3 * H + M + 5, M, unrolled=(), horizon=horizon) == [(3 * H, 3 * H + 2 * M, MINUTE)]
    assert plan(30 * M, 31 * M, M, unrolled=(), horizon=horizon) == [(0, H, HOUR)]


def test_late_data_before_the_horizon_is_not_read_raw():
    assert plan(0, 2 * H, 1, unrolled={0}, horizon=Horizon(raw=H)) == [(0, H, MINUTE), (H, 2 * H, RAW)]


WINDOWS = st.tuples(st.integers(0, 6 * H), st.integers(0, 6 * H), st.sampled_from([1, 7_000, M, 5 * M, H, 2 * H]))
UNROLLED = st.sets(st.integers(0, 5).map(lambda hour: hour * H))
HORIZONS = st.lists(st.integers(0, 6).map(lambda hour: hour * H), min_size=3, max_size=3).map(
    lambda hours: Horizon(*sorted(hours, reverse=True))
)


@given(WINDOWS, UNROLLED, HORIZONS)
def test_a_plan_covers_the_window_once_and_asks_only_for_what_is_there(
    window: tuple[int, int, int], unrolled: set[int], horizon: Horizon
):
    start, end, step = window
    slices = plan(start, end, step, unrolled=unrolled, horizon=horizon)
    if start >= end:
        assert slices == []
        return
    assert all(one.end == other.start for one, other in pairwise(slices))
    assert slices[0].start <= start < slices[0].end
    assert slices[-1].start < end <= slices[-1].end
    for one in slices:
        kept_from = {RAW: horizon.raw, MINUTE: horizon.minute, HOUR: 0}[one.rows]
        assert one.start >= kept_from
        assert one.start % one.rows == one.end % one.rows == 0
        if one.rows is not RAW:
            hours = range(one.start // H * H, one.end, H)
            assert not any(hour in unrolled and hour >= horizon.raw for hour in hours)
        if one.start >= horizon.raw:
            assert step % one.rows == 0
            assert one.start >= start
            assert one.end <= end


@given(WINDOWS, UNROLLED)
def test_a_plan_uses_the_longest_rows_it_can(window: tuple[int, int, int], unrolled: set[int]):
    start, end, step = window
    slices = plan(start, end, step, unrolled=unrolled, horizon=NOTHING_DROPPED)
    for rows in (MINUTE, HOUR):
        if step % rows:
            continue
        for begin in range(-(-start // rows) * rows, end // rows * rows, rows):
            if begin // H * H not in unrolled:
                assert any(one.start <= begin < one.end and one.rows >= rows for one in slices)


@given(st.integers(0, 400 * 24).map(lambda hours: hours * H), UNROLLED)
def test_a_plan_is_short(span: int, unrolled: set[int]):
    """Neighbours are joined: a year is as few questions as a day."""
    assert len(plan(5, span, H, unrolled=unrolled, horizon=Horizon(raw=2 * H, minute=H))) <= 7 + 3 * len(unrolled)


# --- steps and merging -----------------------------------------------------------------------------------------------


def test_a_row_counts_where_it_starts_but_never_before_the_window():
    assert step_of(2 * H, 5, H) == 2 * H
    assert step_of(2 * H + 5 * M, 5, H) == 2 * H
    assert step_of(0, 30_500, 1_000) == 30_000


VALUES = st.lists(
    st.tuples(st.integers(0, 100), st.floats(-100, 100) | st.integers(-9, 9) | st.booleans() | st.text(max_size=2)),
    max_size=30,
    unique_by=lambda pair: pair[0],
)


@given(VALUES, st.sets(st.integers(0, 100)), st.sampled_from([1, 7, 50]))
def test_cut_and_joined_it_is_what_it_was(values: list[tuple[int, Value]], cuts: set[int], step: int):
    """Partial buckets of any stretches of time, however they were cut."""
    whole = Naive()
    whole.write(reading("d", ts, {"x": value}) for ts, value in values)
    borders = [0, *sorted(cuts - {0}), 101]
    partials = [
        as_partial(bucket) for begin, end in pairwise(borders) for bucket in whole.window("", "x", begin, end, step)
    ]
    assert_buckets(merge(partials), whole.window("", "x", 0, 101, step))


def as_partial(bucket: Bucket) -> Partial:
    total = None if bucket.mean is None else bucket.mean * bucket.points
    return Partial(bucket.start, bucket.points, bucket.last, total, bucket.minimum, bucket.maximum)


# --- horizons --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "wanted", "unrolled", "expected"),
    [
        (Horizon(), Horizon(5 * H + 7, 3 * H + 7, H + 7), (), Horizon(5 * H, 3 * H, H)),
        (Horizon(5 * H, 3 * H, H), Horizon(4 * H, 2 * H, 0), (), Horizon(5 * H, 3 * H, H)),
        (Horizon(), Horizon(5 * H, 3 * H, H), (4 * H, 9 * H), Horizon(4 * H, 3 * H, H)),
        (Horizon(), Horizon(5 * H, 3 * H, 3 * H), (2 * H,), Horizon(2 * H, 2 * H, 2 * H)),
        (Horizon(3 * H), Horizon(5 * H), (2 * H,), Horizon(5 * H)),  # late: it was passed long ago
        (Horizon(3 * H), Horizon(5 * H), (2 * H, 3 * H), Horizon(3 * H)),
        (Horizon(), Horizon(2 * H, 3 * H, 4 * H), (), Horizon(2 * H, 2 * H, 2 * H)),  # fine data outlives coarse: no
        (Horizon(), Horizon(-H, -H, -H), (), Horizon()),
    ],
)
def test_horizons_stand_on_whole_hours_before_what_is_not_rolled_up(
    held: Horizon, wanted: Horizon, unrolled: Sequence[int], expected: Horizon
):
    assert advanced(held, wanted, unrolled) == expected


# --- marks -----------------------------------------------------------------------------------------------------------


def lift(name: str, ts: int):
    return reading(name, ts, {})


def test_marks_know_who_wrote_and_who_wrote_since():
    marks = Unrolled([5 * H])
    assert marks.touch([lift("a", 5), lift("b", H), lift("a", 5 * H)]) == [0, H]
    assert marks.touch([lift("b", 6)]) == [0], "still to be marked in the database"
    marks.marked([0, H])
    assert marks.touch([lift("b", 7)]) == []
    assert marks.hours() == [0, H, 5 * H]
    assert [sorted(marks.of(name)) for name in "abc"] == [[0, 5 * H], [0, H, 5 * H], [5 * H]]
    assert marks.begin(0) == frozenset("ab")
    assert marks.begin(5 * H) is None
    marks.touch([lift("c", 8)])
    assert marks.of("a") == {0, 5 * H}, "not before the roll-up has ended"
    assert not marks.rolled(0)
    assert marks.begin(0) == frozenset("c")
    assert marks.rolled(0)
    marks.forget(0)
    assert marks.hours() == [H, 5 * H]
    assert 0 not in marks
    assert marks.touch([lift("a", 5)]) == [0], "to be marked anew"


def test_many_devices_are_all_devices():
    marks = Unrolled(())
    marks.touch([lift(str(n), n) for n in range(MANY)])
    assert marks.of("nobody") == frozenset()
    marks.touch([lift("one more", 1)])
    assert marks.of("nobody") == {0}
    assert marks.begin(0) is None
    marks.touch([lift("one", 1)])
    marks.rolled(0)
    assert [sorted(marks.of(name)) for name in ("nobody", "one")] == [[], [0]]
    marks.begin(0)
    marks.touch([lift(str(n), n) for n in range(MANY + 1)])
    assert not marks.rolled(0)
    assert marks.of("nobody") == {0}


# --- the job ---------------------------------------------------------------------------------------------------------

NOW = 500_000 * H


class FakeStore:
    """Of a series store, what the job asks for."""

    def __init__(self, *hours: int) -> None:
        self.waiting = sorted(hours)
        self.broken: set[int] = set()
        self.away = False
        self.calls: list[object] = []

    def unrolled(self) -> list[int]:
        return list(self.waiting)

    def roll_up(self, hour: int) -> None:
        self.calls.append(hour)
        if hour in self.broken or self.away:
            raise StoreUnavailable("not now")
        self.waiting.remove(hour)

    def expire(self, before: Horizon) -> None:
        self.calls.append(before)
        if self.away:
            raise StoreUnavailable("not now")


class NoWait(threading.Event):
    """Never waits; ends after so many pauses."""

    pauses = 0
    ends_after = 10**6

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses += 1
        if self.pauses >= self.ends_after:
            self.set()
        return self.is_set()


def job(store: FakeStore, clock: list[int]) -> RollUpJob:
    return RollUpJob(store, Series(raw_days=2, minute_days=3, hour_days=4), lambda: clock[0])  # type: ignore[arg-type] # has what the job needs


DAYS = Horizon(NOW - 48 * H, NOW - 72 * H, NOW - 96 * H)


def test_hours_that_are_over_are_rolled_up_oldest_first_then_what_is_old_is_dropped():
    store, clock = FakeStore(NOW - 3 * H, NOW - H, NOW - 2 * H, NOW), [NOW]
    work = job(store, clock)
    work.work(NoWait())
    assert store.calls == [NOW - 3 * H, NOW - 2 * H, DAYS]
    clock[0] = NOW + GRACE_MS - 1
    work.work(NoWait())
    assert store.calls[3:] == []
    clock[0] = NOW + GRACE_MS
    work.work(NoWait())
    assert store.calls[3:] == [NOW - H]
    clock[0] = NOW + H
    work.work(NoWait())
    assert store.calls[4:] == [Horizon(*(one + H for one in DAYS))], "the next hour is over for less than the grace"


def test_an_hour_that_cannot_be_rolled_up_does_not_hold_up_the_others():
    store = FakeStore(NOW - 4 * H, NOW - 3 * H, NOW - 2 * H)
    store.broken = {NOW - 4 * H}
    job(store, [NOW]).work(NoWait())
    assert store.waiting == [NOW - 4 * H]
    assert store.calls[-1] == DAYS


def test_a_store_that_is_away_is_left_alone_until_the_next_minute():
    store, clock = FakeStore(*(NOW - hours * H for hours in range(2, 30))), [NOW]
    work = job(store, clock)
    store.away = True
    work.work(NoWait())
    assert store.calls == [NOW - 29 * H, NOW - 28 * H]
    store.away = False
    work.work(NoWait())
    assert store.waiting == []
    assert store.calls[-1] == DAYS


def test_dropping_is_tried_again_too():
    store, clock = FakeStore(), [NOW]
    work = job(store, clock)
    store.away = True
    work.work(NoWait())
    store.away = False
    work.work(NoWait())
    work.work(NoWait())
    assert store.calls == [DAYS, DAYS]


def test_a_long_backlog_does_not_put_off_dropping():
    clock = [NOW]

    class Slow(FakeStore):
        def roll_up(self, hour: int) -> None:
            super().roll_up(hour)
            clock[0] += 30 * MINUTE_MS

    store = Slow(*(NOW - hours * H for hours in range(10, 15)))
    job(store, clock).work(NoWait())
    dropped = [place for place, call in enumerate(store.calls) if isinstance(call, Horizon)]
    assert dropped == [2, 5], "an hour after the beginning, and once an hour from then on"


def test_a_mistake_of_ours_does_not_end_the_service():
    class Wrong(FakeStore):
        def unrolled(self) -> list[int]:
            self.calls.append("asked")
            raise ValueError("ours")

    store, stop = Wrong(), NoWait()
    stop.ends_after = 3
    job(store, [NOW]).run(stop)
    assert store.calls == ["asked"] * 3


def test_it_stops_between_two_hours():
    store = FakeStore(NOW - 4 * H, NOW - 3 * H, NOW - 2 * H)
    stop = NoWait()
    stop.ends_after = 2
    job(store, [NOW]).run(stop)
    assert store.calls == [NOW - 4 * H, NOW - 3 * H]


def test_it_works_until_it_is_stopped():
    store = FakeStore(NOW - 4 * H)
    stop = NoWait()
    stop.ends_after = 5
    job(store, [NOW]).run(stop)
    assert store.calls == [NOW - 4 * H, DAYS]
