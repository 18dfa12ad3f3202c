"""What roll-ups and retention must do in every series store. A driver's test file subclasses `RollUpContract` too.

As in `series_contract`, every test speaks of devices of its own, so that a store may be shared and need not be empty.
Horizons are common to all devices: tests that drop data live in years of their own, long before those of the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import EARLIEST_MS
from core.reading import Batch, Value
from storage.series import HOUR_MS, MINUTE_MS, Bucket, Horizon, LastValue, SeriesStore
from tests.storage.series_contract import (
    CHARGER_FIELDS,
    SHARED,
    Naive,
    Reopen,
    assert_buckets,
    before_and_after,
    event,
    new_device,
    reading,
    write,
)

NOON: Final = 1_795_348_800_000
"""A whole hour. The rolled tests play in the three hours from here; nothing of theirs is ever dropped."""

STEPS: Final = (1, 1_000, 90_000, MINUTE_MS, 5 * MINUTE_MS, HOUR_MS, 2 * HOUR_MS, 90 * MINUTE_MS)
AGE_MS: Final = 12 * HOUR_MS
_ages = count(1)

stories = settings(max_examples=20, deadline=None, suppress_health_check=SHARED)


def new_age() -> int:
    """A whole hour with nothing before it that matters, and 11 hours after it, for a test that drops data."""
    return (EARLIEST_MS // AGE_MS + next(_ages)) * AGE_MS


def roll_all(store: SeriesStore, *, before: int = 2**62) -> None:
    """As the job does: oldest first."""
    for hour in store.unrolled():
        if hour < before:
            store.roll_up(hour)


def hours(*numbers: int, base: int = NOON) -> list[int]:
    return [base + number * HOUR_MS for number in numbers]


# --- stories: any order of writing, rolling up and reopening ---------------------------------------------------------

TIMES = st.one_of(
    st.sampled_from([0, 1, MINUTE_MS - 1, MINUTE_MS, HOUR_MS - 1, HOUR_MS, 2 * HOUR_MS - 1, 2 * HOUR_MS]),
    st.integers(0, 3 * HOUR_MS - 1),
    st.integers(0, 3 * 60 - 1).map(lambda minute: minute * MINUTE_MS),
).map(lambda ms: NOON + ms)
BORDERS = TIMES | st.integers(NOON - HOUR_MS, NOON + 4 * HOUR_MS)


@st.composite
def samples(draw: st.DrawFn) -> tuple[str, int, dict[str, Value]]:
    """Part, ts and fields of one reading of a pile."""
    fields: dict[str, Value] = draw(st.fixed_dictionaries({}, optional=CHARGER_FIELDS))
    return draw(st.sampled_from(["", "1"])), draw(TIMES), fields


WRITES = st.tuples(st.just("write"), st.integers(0, 1), st.lists(samples(), min_size=1, max_size=8))
ROLLS = st.tuples(st.just("roll"), st.sampled_from(hours(0, 1, 2)))
STORIES = st.lists(st.one_of(WRITES, ROLLS, st.just(("reopen",)), st.just(("roll all",))), min_size=1, max_size=10)
QUESTIONS = st.lists(st.tuples(BORDERS, BORDERS, st.sampled_from(STEPS)), min_size=1, max_size=3)


class Story:
    """A store, a reference that never heard of roll-ups, and two devices that both know."""

    def __init__(self, reopen: Reopen, store: SeriesStore) -> None:
        self.store = store
        self._reopen = reopen
        self.devices = {new_device(): Naive() for _ in range(2)}
        self._received = count(NOON + 10 * HOUR_MS)  # each reading at another instant: no ties to break

    def play(self, story: Iterable[tuple[Any, ...]]) -> None:
        for word, *facts in story:
            if word == "write":
                self.write(*facts)
            elif word == "roll":
                self.store.roll_up(*facts)
            elif word == "roll all":
                roll_all(self.store)
            else:
                self.store = self._reopen()

    def write(self, which: int, sent: Iterable[tuple[str, int, dict[str, Value]]]) -> None:
        device = list(self.devices)[which]
        items = [
            reading(device, ts, fields, kind="charger", part=part, rx=next(self._received)) for part, ts, fields in sent
        ]
        write(self.store, *items)
        self.devices[device].write(items)

    def check(self, questions: Iterable[tuple[int, int, int]]) -> None:
        for one, other, step in questions:
            start, end = min(one, other), max(one, other)
            for device, reference in self.devices.items():
                for part in ("", "1"):
                    for field in CHARGER_FIELDS:
                        found = self.store.window("charger", device, part, field, start=start, end=end, step=step)
                        assert_buckets(found, reference.window(part, field, start, end, step))

    def check_last_values(self) -> None:
        for device, reference in self.devices.items():
            held = {part: one for (_, part), one in self.store.last_values([device]).items()}
            assert held == reference.last_values()


# --- the contract ----------------------------------------------------------------------------------------------------


class RollUpContract:
    """Subclass it and provide `reopen` and `store`, as for `SeriesContract`."""

    keeps_late = True
    """Whether samples from before the horizon of raw data are taken; else the store must refuse each by name."""

    @pytest.fixture
    def reopen(self) -> Reopen:
        raise NotImplementedError

    @pytest.fixture
    def store(self, reopen: Reopen) -> SeriesStore:
        return reopen()

    # roll-ups never show

    @stories
    @given(STORIES, QUESTIONS)
    def test_a_store_answers_as_if_it_had_never_rolled_up(self, reopen: Reopen, story, questions):
        told = Story(reopen, reopen())
        told.play(story)
        told.check(questions)
        told.check_last_values()
        told.play([("roll all",)])
        told.check(questions)
        told.play([("reopen",)])
        told.check(questions)
        told.check_last_values()

    @stories
    @given(st.lists(samples(), min_size=1, max_size=30), QUESTIONS)
    def test_rolled_up_data_answers_like_raw_data(self, store: SeriesStore, sent, questions):
        told = Story(lambda: store, store)
        told.play([("write", 0, sent), ("roll all",)])
        assert not set(store.unrolled()) & set(hours(0, 1, 2))
        told.check(questions)

    def test_late_data_of_one_device_does_not_disturb_another(self, store: SeriesStore):
        one, other = new_device(), new_device()
        for device in (one, other):
            write(store, reading(device, NOON + 5, {"floor": 1}), reading(device, NOON + HOUR_MS - 1, {"floor": 3}))
        roll_all(store)
        write(store, reading(one, NOON + 7, {"floor": 8}))
        expected: dict[str, list[Bucket]] = {
            one: [Bucket(NOON, 3, 3, 4.0, 1, 8)],
            other: [Bucket(NOON, 2, 3, 2.0, 1, 3)],
        }
        for device, buckets in expected.items():
            assert hour_window(store, device, "floor") == buckets
        roll_all(store)
        for device, buckets in expected.items():
            assert hour_window(store, device, "floor") == buckets

    def test_a_point_that_comes_again_after_the_roll_up_is_still_one_point(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        point = reading(device, NOON + 5, {"floor": 2, "x": 1.5})
        write(store, point)
        roll_all(store)
        write(store, point)
        roll_all(store)
        write(store, point._replace(fields={"floor": 4}))
        roll_all(store)
        for asked in before_and_after(store, reopen):
            assert hour_window(asked, device, "floor") == [Bucket(NOON, 1, 4, 4.0, 4, 4)]
            assert hour_window(asked, device, "x") == [Bucket(NOON, 1, 1.5, 1.5, 1.5, 1.5)]

    def test_a_field_that_changes_its_type_has_numbers_only_where_all_are(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        values: list[Value] = [1.0, 2, "on", True, 5.0]
        for minute, value in enumerate(values):
            write(store, reading(device, NOON + minute * MINUTE_MS, {"x": value}))
        write(store, reading(device, NOON + 1, {"x": "two in one minute"}))
        roll_all(store)
        for asked in before_and_after(store, reopen):
            assert hour_window(asked, device, "x") == [Bucket(NOON, 6, 5.0, None, None, None)]

            def by(step: int, asked: SeriesStore = asked) -> list[Bucket]:
                return asked.window("elevator", device, "", "x", start=NOON, end=NOON + HOUR_MS, step=step)

            assert by(5 * MINUTE_MS) == [Bucket(NOON, 6, 5.0, None, None, None)]
            assert [one.mean for one in by(MINUTE_MS)] == [None, 2.0, None, None, 5.0]
            assert [one.last for one in by(MINUTE_MS)] == ["two in one minute", 2, "on", True, 5.0]

    # marks

    def test_an_hour_is_unrolled_from_its_first_write_to_its_roll_up(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        write(store, reading(device, NOON + 2 * HOUR_MS, {"floor": 1}), reading(device, NOON, {"floor": 1}))
        for asked in before_and_after(store, reopen):
            store = asked
            assert set(asked.unrolled()) >= set(hours(0, 2))
            assert asked.unrolled() == sorted(asked.unrolled())
        store.roll_up(NOON)
        for asked in before_and_after(store, reopen):
            store = asked
            assert NOON not in asked.unrolled()
            assert NOON + 2 * HOUR_MS in asked.unrolled()
        write(store, reading(device, NOON + HOUR_MS - 1, {"floor": 1}))
        assert NOON in reopen().unrolled()

    def test_rolling_up_an_hour_again_or_one_without_data(self, store: SeriesStore):
        device = new_device()
        write(store, reading(device, NOON, {"floor": 1}))
        for _ in range(3):
            roll_all(store)
            store.roll_up(NOON)
            store.roll_up(NOON - 99 * HOUR_MS)
        assert hour_window(store, device, "floor") == [Bucket(NOON, 1, 1, 1.0, 1, 1)]

    def test_readings_without_fields_and_events_roll_up_to_nothing(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        write(store, reading(device, NOON, {}), event(device, NOON, "e-1"))
        roll_all(store)
        for asked in before_and_after(store, reopen):
            assert hour_window(asked, device, "floor") == []
            assert len(asked.events(device, start=NOON, end=NOON + 1, limit=5)) == 1
            assert asked.last_values([device])[device, ""].ts == NOON

    # retention. A window before the horizon is answered by the rows that are left.

    def test_raw_data_goes_and_whole_minutes_stay(self, store: SeriesStore, reopen: Reopen):
        device, age = new_device(), new_age()
        times = [0, 999, 59_999, 60_000, 5 * MINUTE_MS + 30_000]
        write(store, *(reading(device, age + ms, {"floor": 1 + n, "x": f"n{n}"}) for n, ms in enumerate(times)))
        roll_all(store, before=age + AGE_MS)
        store.expire(Horizon(raw=age + HOUR_MS))
        for asked in before_and_after(store, reopen):
            found = asked.window("elevator", device, "", "floor", start=age, end=age + HOUR_MS, step=MINUTE_MS)
            assert found == [
                Bucket(age, 3, 3, 2.0, 1, 3),
                Bucket(age + MINUTE_MS, 1, 4, 4.0, 4, 4),
                Bucket(age + 5 * MINUTE_MS, 1, 5, 5.0, 5, 5),
            ]
            text = asked.window("elevator", device, "", "x", start=age, end=age + HOUR_MS, step=10 * MINUTE_MS)
            assert text == [Bucket(age, 5, "n4", None, None, None)]
            assert hour_window(asked, device, "floor", base=age) == [Bucket(age, 5, 5, 3.0, 1, 5)]

    def test_a_finer_question_than_the_rows_that_are_left_is_answered_by_whole_rows(self, store: SeriesStore):
        device, age = new_device(), new_age()
        write(store, *(reading(device, age + ms, {"floor": 3}) for ms in (1_000, 40_000, MINUTE_MS + 5)))
        roll_all(store, before=age + AGE_MS)
        store.expire(Horizon(raw=age + HOUR_MS))
        minutes = [Bucket(age, 2, 3, 3.0, 3, 3), Bucket(age + MINUTE_MS, 1, 3, 3.0, 3, 3)]

        def asked(start: int, end: int, step: int) -> list[Bucket]:
            return store.window("elevator", device, "", "floor", start=age + start, end=age + end, step=step)

        assert asked(0, HOUR_MS, 1_000) == minutes
        assert asked(0, HOUR_MS, 45_000) == [minutes[0], minutes[1]._replace(start=age + 45_000)]
        assert asked(30_000, MINUTE_MS, 1_000) == [minutes[0]._replace(start=age + 30_000)]  # the window's first step
        assert asked(30_500, MINUTE_MS, 1_000) == [minutes[0]._replace(start=age + 30_000)]
        store.expire(Horizon(raw=age + HOUR_MS, minute=age + HOUR_MS))
        assert asked(0, HOUR_MS, MINUTE_MS) == [Bucket(age, 3, 3, 3.0, 3, 3)]
        assert asked(30 * MINUTE_MS, 31 * MINUTE_MS, 1_000) == [Bucket(age + 30 * MINUTE_MS, 3, 3, 3.0, 3, 3)]

    def test_minute_rows_go_then_hour_rows_and_events(self, store: SeriesStore, reopen: Reopen):
        device, age = new_device(), new_age()
        for hour in hours(0, 1, 2, base=age):
            write(store, reading(device, hour + 5, {"floor": 2}), event(device, hour, f"e-{hour}"))
        roll_all(store, before=age + AGE_MS)
        first, second, third = hours(1, 2, 3, base=age)
        store.expire(Horizon(raw=third, minute=second, hour=first))
        for asked in before_and_after(store, reopen):
            found = asked.window("elevator", device, "", "floor", start=age, end=third, step=MINUTE_MS)
            assert [one.start for one in found] == [first, second]
            assert [one.id for one in asked.events(device, start=age, end=third, limit=9)] == [
                f"e-{second}",
                f"e-{first}",
            ]

    def test_both_sides_of_the_horizon_in_one_window(self, store: SeriesStore):
        device, age = new_device(), new_age()
        write(store, *(reading(device, hour + 5, {"floor": 2}) for hour in hours(0, 1, 2, 3, base=age)))
        roll_all(store, before=age + 3 * HOUR_MS)
        store.expire(Horizon(raw=age + 2 * HOUR_MS, minute=age + HOUR_MS))
        assert hour_window(store, device, "floor", base=age, span=4 * HOUR_MS) == [
            Bucket(hour, 1, 2, 2.0, 2, 2) for hour in hours(0, 1, 2, 3, base=age)
        ]
        found = store.window("elevator", device, "", "floor", start=age, end=age + AGE_MS, step=1)
        assert [one.start - age for one in found] == [0, HOUR_MS, 2 * HOUR_MS + 5, 3 * HOUR_MS + 5]

    def test_raw_data_that_is_not_rolled_up_stays(self, store: SeriesStore, reopen: Reopen):
        device, age = new_device(), new_age()
        roll_all(store, before=age)
        write(store, *(reading(device, hour + 5, {"floor": 2}) for hour in hours(0, 1, 2, base=age)))
        store.roll_up(age)
        store.expire(Horizon(raw=age + 4 * HOUR_MS, minute=age + 4 * HOUR_MS, hour=age + 4 * HOUR_MS))
        for asked in before_and_after(store, reopen):
            found = asked.window("elevator", device, "", "floor", start=age, end=age + AGE_MS, step=1)
            assert [one.start - age for one in found] == [HOUR_MS + 5, 2 * HOUR_MS + 5]

    def test_a_horizon_never_goes_back(self, store: SeriesStore, reopen: Reopen):
        """Whoever keeps data for longer from now on has it from now on; what is gone must not be looked for."""
        device, age = new_device(), new_age()
        write(store, reading(device, age + 5, {"floor": 2}))
        roll_all(store, before=age + AGE_MS)
        store.expire(Horizon(raw=age + HOUR_MS))
        for asked in before_and_after(store, reopen):
            asked.expire(Horizon())
            found = asked.window("elevator", device, "", "floor", start=age, end=age + HOUR_MS, step=1)
            assert found == [Bucket(age, 1, 2, 2.0, 2, 2)]

    def test_last_values_outlive_the_data(self, store: SeriesStore, reopen: Reopen):
        device, age = new_device(), new_age()
        write(store, reading(device, age + 5, {"floor": 2, "x": "on", "online": True}, rx=age + 9))
        write(store, reading(device, age + 1, {"floor": 1, "door": "open"}, rx=age + 99))
        before = store.last_values([device])
        roll_all(store, before=age + AGE_MS)
        store.expire(Horizon(*[age + HOUR_MS] * 3))
        for asked in before_and_after(store, reopen):
            assert asked.last_values([device]) == before
            assert asked.last_seen()[device] == age + 99
            assert asked.window("elevator", device, "", "floor", start=age, end=age + HOUR_MS, step=1) == []

    # data that comes after the raw data of its hour was dropped

    def test_crumbs_never_replace_rows_of_complete_data(self, store: SeriesStore, reopen: Reopen):
        device, age = new_device(), new_age()
        write(store, *(reading(device, age + ms, {"floor": 2, "x": 1.0}) for ms in (5, 6, MINUTE_MS)))
        roll_all(store, before=age + AGE_MS)
        store.expire(Horizon(raw=age + HOUR_MS))
        store = reopen()
        write(store, *(reading(device, age + ms, {"floor": 7, "x": "late"}) for ms in (7, 8)))
        for _ in range(2):
            for asked in before_and_after(store, reopen):
                store = asked
                assert hour_window(asked, device, "floor", base=age) == [Bucket(age, 3, 2, 2.0, 2, 2)]
                assert hour_window(asked, device, "x", base=age) == [Bucket(age, 3, 1.0, 1.0, 1.0, 1.0)]
            roll_all(store, before=age + AGE_MS)
            store.expire(Horizon(raw=age + HOUR_MS))
        by_minute = store.window("elevator", device, "", "floor", start=age, end=age + HOUR_MS, step=MINUTE_MS)
        assert [one.points for one in by_minute] == [2, 1]

    def test_a_backlog_of_a_device_that_was_silent_gets_its_rows(self, store: SeriesStore, reopen: Reopen):
        """In several batches with roll-ups between them; of other fields than the device had sent, too."""
        device, other, age = new_device(), new_device(), new_age()
        write(store, *(reading(one, age + 5, {"floor": 2}) for one in (device, other)))
        roll_all(store, before=age + AGE_MS)
        store.expire(Horizon(raw=age + HOUR_MS))
        silent = new_device()
        if not self.keeps_late:
            late = reading(silent, age, {"floor": 1})
            (refused,) = store.write(Batch((late,)))
            assert refused.item is late
            assert "older than raw data is kept" in refused.reason
            assert hour_window(store, silent, "floor", base=age) == []
            assert store.last_seen()[silent] == late.rx, "a sign of life all the same"
            return
        for n in range(4):
            backlog = reading(silent, age + n * MINUTE_MS, {"floor": 1 + n, "x": float(n)})
            write(store, backlog, reading(device, age + n * MINUTE_MS, {"motor_temp_c": 10.0 + n, "y": "b"}))
            store.expire(Horizon(raw=age + HOUR_MS))  # what waits to be rolled up stays
            roll_all(store, before=age + AGE_MS)
        write(store, reading(silent, age + 3 * MINUTE_MS, {"floor": 8, "x": 5.0}))  # as many points: the newer ones
        roll_all(store, before=age + AGE_MS)
        store.expire(Horizon(raw=age + HOUR_MS))
        for asked in before_and_after(store, reopen):
            assert hour_window(asked, silent, "floor", base=age) == [Bucket(age, 4, 8, 3.5, 1, 8)]
            assert hour_window(asked, silent, "x", base=age) == [Bucket(age, 4, 5.0, 2.0, 0.0, 5.0)]
            assert hour_window(asked, device, "motor_temp_c", base=age) == [Bucket(age, 4, 13.0, 11.5, 10.0, 13.0)]
            assert hour_window(asked, device, "y", base=age) == [Bucket(age, 4, "b", None, None, None)]
            for one in (device, other):
                assert hour_window(asked, one, "floor", base=age) == [Bucket(age, 1, 2, 2.0, 2, 2)]

    def test_crumbs_before_the_horizon_of_everything_leave_nothing_behind(self, store: SeriesStore):
        device, age = new_device(), new_age()
        roll_all(store, before=age + AGE_MS)
        store.expire(Horizon(*[age + HOUR_MS] * 3))
        write(store, reading(device, age + 5, {"floor": 2}))
        roll_all(store, before=age + AGE_MS)
        store.expire(Horizon(*[age + HOUR_MS] * 3))
        assert age not in store.unrolled()
        assert hour_window(store, device, "floor", base=age) == []
        assert store.last_values([device])[device, ""].values == {"floor": LastValue(2, age + 5)}


def hour_window(store: SeriesStore, device: str, field: str, *, base: int = NOON, span: int = HOUR_MS) -> list[Bucket]:
    """A lift's field by hours, which only hour rows answer once they are there."""
    return store.window("elevator", device, "", field, start=base, end=base + span, step=HOUR_MS)
