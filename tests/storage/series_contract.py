"""What every series store must do, whichever database it is. A driver's test file subclasses `SeriesContract`.

Nothing here knows a driver: a test only writes batches and asks. Every test and every example speaks of devices of its
own, so that a store may be shared and need not be empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.kinds import KINDS, STATUS_FIELDS, all_fields
from core.reading import Batch, Event, Reading, Value
from storage.series import Bucket, LastValue, PartValues, SeriesStore
from tests import wire

T: Final = 1_795_312_374_000
"""Not a multiple of a minute: steps are whole multiples counted from 1970, not from the window's start."""

MINUTE: Final = 60_000
HOSTILE: Final = "'; DROP TABLE elevator; -- \" \\ , = \u0000 \n 困 😀 %s {0}"
STRANGE_NAMES: Final = (
    *(
        'it\'s "x"',
        "a/b",
        "a~b",
        "~1",
        "~0",
        "a b",
        " ",
        "😀",
        "温度",
        "/",
        "$",
        "$.x",
        "*",
        "[0]",
        "0",
        "a.b",
        "a,b=c",
    ),
    *("rx", "ts", "seq", "part", "device_id", "device", "kind", "extra", "rowid", "time", "name", "value", "_value"),
    *("back\\slash\\", "'; DROP TABLE elevator; --", "select", "n" * 64, "A", "a", "é", "e\u0301"),
)
_numbers = count(1)

SHARED: Final = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.differing_executors]
"""Every driver's test class runs the same tests: Hypothesis takes that for a mistake."""

reopening = settings(max_examples=12, deadline=None, suppress_health_check=SHARED)
often = settings(max_examples=40, deadline=None, suppress_health_check=SHARED)

Reopen = Callable[[], SeriesStore]
Point = tuple[str, int]
"""Part and ts."""


def new_device() -> str:
    """A device that no other test speaks of. Ids have hyphens and a dot."""
    return f"contract-site.dev-{next(_numbers)}-x"


def reading(device: str, ts: int, fields: Mapping[str, Value], **more: Any) -> Reading:
    facts: dict[str, Any] = {"kind": "elevator", "part": "", "rx": ts + 50, "seq": None} | more
    return Reading(device, facts.pop("kind"), facts.pop("part"), ts, facts.pop("rx"), facts.pop("seq"), fields, **facts)


def event(device: str, ts: int, id: str, **more: Any) -> Event:
    facts: dict[str, Any] = {"fault": "alarm_button", "part": "", "raised": True, "rx": ts + 50, "seq": 3}
    facts |= {"kind": "elevator", "table": "gbt24476", "code": "90"} | more
    return Event(device, ts=ts, id=id, **facts)


def write(store: SeriesStore, *items: Reading | Event) -> None:
    store.write(Batch(items))


def window(store: SeriesStore, device: str, field: str, **more: Any) -> list[Bucket]:
    facts: dict[str, Any] = {"kind": "elevator", "part": "", "start": T - 10 * MINUTE, "end": T + 10 * MINUTE} | more
    return store.window(
        facts["kind"],
        device,
        facts["part"],
        field,
        start=facts["start"],
        end=facts["end"],
        step=facts.get("step", 1),
    )


def only_value(store: SeriesStore, device: str, field: str, **more: Any) -> Value:
    (bucket,) = window(store, device, field, **more)
    return bucket.last


def same_type(one: Value, other: Value) -> bool:
    """True, 1 and "1" are three things; 1 and 1.0 are one number."""
    return isinstance(one, bool) == isinstance(other, bool) and isinstance(one, str) == isinstance(other, str)


def before_and_after(store: SeriesStore, reopen: Reopen) -> Iterator[SeriesStore]:
    """The same questions to the store as it is and after it was closed and opened again."""
    yield store
    yield reopen()


# --- a naive reference -----------------------------------------------------------------------------------------------


class Naive:
    """The promise of `storage.series` in the shortest words: dictionaries and loops."""

    def __init__(self) -> None:
        self.points: dict[Point, dict[str, Value]] = {}
        self.alive: dict[str, int] = {}
        self.status: dict[tuple[str, str], tuple[int, LastValue]] = {}
        self.kind = ""

    def write(self, readings: Iterable[Reading]) -> None:
        for one in readings:
            self.kind = one.kind
            self.points.setdefault((one.part, one.ts), {}).update(one.fields)
            if one.sign_of_life:
                self.alive[one.part] = max(self.alive.get(one.part, 0), one.rx)
            for name in STATUS_FIELDS & one.fields.keys():
                if self.status.get((one.part, name), (0,))[0] <= one.rx:
                    self.status[one.part, name] = (one.rx, LastValue(one.fields[name], one.ts))

    def window(self, part: str, field: str, start: int, end: int, step: int) -> list[Bucket]:
        steps: dict[int, list[Value]] = {}
        for (of_part, ts), fields in sorted(self.points.items(), key=lambda point: point[0][1]):
            if of_part == part and start <= ts < end and field in fields:
                steps.setdefault(ts // step * step, []).append(fields[field])
        return [self._bucket(begin, values) for begin, values in sorted(steps.items())]

    @staticmethod
    def _bucket(start: int, values: Sequence[Value]) -> Bucket:
        numbers = [value for value in values if not isinstance(value, bool | str)]
        if len(numbers) < len(values):
            return Bucket(start, len(values), values[-1], None, None, None)
        return Bucket(start, len(values), values[-1], sum(numbers) / len(numbers), min(numbers), max(numbers))

    def last_values(self) -> dict[str, PartValues]:
        found: dict[str, PartValues] = {}
        for (part, ts), fields in sorted(self.points.items(), key=lambda point: point[0][1]):
            values = {**found[part].values} if part in found else {}
            values |= {name: LastValue(value, ts) for name, value in fields.items()}
            values |= {name: held for (of_part, name), (_, held) in self.status.items() if of_part == part}
            found[part] = PartValues(self.kind, ts, self.alive.get(part), values)
        return found


def assert_buckets(found: list[Bucket], expected: list[Bucket]) -> None:
    assert [(one.start, one.points, one.last) for one in found] == [
        (one.start, one.points, one.last) for one in expected
    ]
    for one, wanted in zip(found, expected, strict=True):
        assert same_type(one.last, wanted.last)
        assert (one.minimum, one.maximum) == (wanted.minimum, wanted.maximum)
        assert one.mean == (None if wanted.mean is None else pytest.approx(wanted.mean, rel=1e-9, abs=1e-9))


TIMES = st.integers(T - 5, T + 5) | st.integers(T - 3 * MINUTE, T + 3 * MINUTE)
CHARGER_FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "temp_c": st.floats(-65, 400),
    "duration_s": st.integers(0, 604_800),
    "state": st.sampled_from(["idle", "charging", "fault"]),
    "order": st.text(wire.CHARACTERS, max_size=8),
    "mains": st.booleans(),
    "x-number": st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6),
    "x-any": st.booleans() | st.floats(-100, 100) | st.text(wire.CHARACTERS, max_size=4),
}


@st.composite
def charger_readings(draw: st.DrawFn) -> tuple[str, int, dict[str, Value], dict[str, Any]]:
    """Part, ts, fields and facts of one reading of a pile."""
    fields: dict[str, Value] = draw(st.fixed_dictionaries({}, optional=CHARGER_FIELDS))
    if draw(st.integers(0, 9)) == 0:
        fields["online"] = draw(st.booleans())
    ts = draw(TIMES)
    facts = {"rx": ts + draw(st.integers(0, 100_000)), "retained": draw(st.integers(0, 3)) == 0}
    return draw(st.sampled_from(["", "1", "12"])), ts, fields, facts


BATCHES = st.lists(st.lists(charger_readings(), min_size=1, max_size=6), min_size=1, max_size=4)


def played(store: SeriesStore, device: str, batches: Any) -> Naive:
    """Writes generated batches to the store and to the reference."""
    reference = Naive()
    for batch in batches:
        items = [reading(device, ts, fields, kind="charger", part=part, **facts) for part, ts, fields, facts in batch]
        write(store, *items)
        reference.write(items)
    return reference


# --- the contract ----------------------------------------------------------------------------------------------------


class SeriesContract:
    """Subclass it and provide `reopen`: it closes the open store, if any, and opens it again with all that it holds."""

    @pytest.fixture
    def reopen(self) -> Reopen:
        raise NotImplementedError

    @pytest.fixture
    def store(self, reopen: Reopen) -> SeriesStore:
        """The open store. A driver that is slow to open gives the one that is open already."""
        return reopen()

    # values

    @pytest.mark.parametrize("kind", sorted(KINDS))
    def test_every_field_of_the_contract_keeps_its_value_and_type(self, store: SeriesStore, reopen: Reopen, kind: str):
        device, part = new_device(), "" if KINDS[kind].part is None else "7"
        store = reopen()
        examples: dict[type, Value] = {bool: True, int: 2**53 - 1, float: 20.125, str: "地下 1"}
        sent = {
            name: spec.choices[-1] if spec.choices else examples[spec.type] for name, spec in all_fields(kind).items()
        }
        write(store, reading(device, T, sent, kind=kind, part=part))
        for asked in before_and_after(store, reopen):
            for name, value in sent.items():
                found = only_value(asked, device, name, kind=kind, part=part)
                assert (found, type(found)) == (value, type(value)), name
            held = asked.last_values([device])[device, part]
            assert held.values == {name: LastValue(value, T) for name, value in sent.items()}
            assert all(type(held.values[name].value) is type(value) for name, value in sent.items())

    @pytest.mark.parametrize(
        "value", [False, 0.0, "", -0.0, 1e308, 5e-324, 0.1 + 0.2, HOSTILE, "x" * 1024, "true", "1"]
    )
    def test_every_value_comes_back_exactly(self, store: SeriesStore, reopen: Reopen, value: Value):
        device = new_device()
        known: dict[type, str] = {bool: "moving", float: "levelling_mm", str: "floor_label"}
        fields = {known[type(value)]: value, "unknown-x": value}
        write(store, reading(device, T, fields))
        for asked in before_and_after(store, reopen):
            for name in fields:
                assert only_value(asked, device, name) == value
                assert same_type(only_value(asked, device, name), value)
                assert asked.last_values([device])[device, ""].values[name] == (value, T)

    @pytest.mark.parametrize("name", STRANGE_NAMES)
    def test_unknown_fields_of_any_name(self, store: SeriesStore, name: str):
        device = new_device()
        write(store, reading(device, T, {name: 1.5, "neighbour-x": 9.0}), reading(device, T + 1, {name: 2.5}))
        assert_buckets(window(store, device, name, step=MINUTE), [Bucket(T // MINUTE * MINUTE, 2, 2.5, 2.0, 1.5, 2.5)])
        assert set(store.last_values([device])[device, ""].values) == {name, "neighbour-x"}

    def test_names_that_differ_little_are_different_fields(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        sent = {name: float(number) for number, name in enumerate(STRANGE_NAMES)}
        write(store, reading(device, T, sent))
        for asked in before_and_after(store, reopen):
            assert {name: only_value(asked, device, name) for name in sent} == sent
            held = asked.last_values([device])[device, ""].values
            assert {name: last.value for name, last in held.items()} == sent

    def test_an_unknown_field_may_change_its_type(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        values: list[Value] = [1.0, "on", True, 2.5, "3", False]
        for number, value in enumerate(values):
            write(store, reading(device, T + number, {"x": value}))
        for asked in before_and_after(store, reopen):
            found = [bucket.last for bucket in window(asked, device, "x")]
            assert found == values
            assert all(same_type(one, other) for one, other in zip(found, values, strict=True))
            (whole,) = window(asked, device, "x", step=20 * MINUTE)
            assert (whole.points, whole.last) == (6, False)
            assert asked.last_values([device])[device, ""].values == {"x": (False, T + 5)}

    def test_a_whole_number_in_an_unknown_field_is_a_number(self, store: SeriesStore):
        device = new_device()
        write(store, reading(device, T, {"x": 2}), reading(device, T + 1, {"x": 3.5}))
        (bucket,) = window(store, device, "x", step=20 * MINUTE)
        assert bucket[1:] == (2, 3.5, 2.75, 2, 3.5)

    def test_text_and_bools_have_only_last(self, store: SeriesStore):
        device = new_device()
        write(store, reading(device, T, {"door": "open", "moving": True, "x": "a", "y": False}))
        for name in ("door", "moving", "x", "y"):
            (bucket,) = window(store, device, name)
            assert (bucket.mean, bucket.minimum, bucket.maximum) == (None, None, None)

    def test_a_reading_without_fields_is_a_sign_of_life_all_the_same(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        write(store, reading(device, T, {}, kind="charger", rx=T + 7))
        for asked in before_and_after(store, reopen):
            assert asked.last_values([device]) == {(device, ""): PartValues("charger", T, T + 7, {})}
            assert asked.last_seen()[device] == T + 7

    def test_hostile_text_in_every_text(self, store: SeriesStore, reopen: Reopen):
        """Also as an id or a part: whoever asks for what nobody has gets nothing, and nothing breaks."""
        device = new_device()
        write(store, reading(device, T, {"floor_label": "ok"}), event(device, T, HOSTILE, code=HOSTILE, table=HOSTILE))
        assert window(store, HOSTILE, "floor_label") == []
        assert window(store, device, "floor_label", part=HOSTILE) == []
        assert window(store, device, HOSTILE) == []
        assert store.last_values([HOSTILE]) == {}
        assert store.events(HOSTILE, start=0, end=2 * T, limit=5) == []
        for asked in before_and_after(store, reopen):
            (found,) = asked.events(device, start=0, end=2 * T, limit=5)
            assert (found.id, found.code, found.table) == (HOSTILE, HOSTILE, HOSTILE)
            assert only_value(asked, device, "floor_label") == "ok"

    # identity

    def test_a_point_that_comes_again_lands_on_itself(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        fields: dict[str, Value] = {"floor": 3, "door": "open", "x": 1.5, "speed_mps": 0.5}
        whole = reading(device, T, fields)
        write(store, whole, whole)
        write(store, whole)
        write(reopen(), whole._replace(rx=T + 9_000))
        store = reopen()
        for name, value in fields.items():
            (bucket,) = window(store, device, name, step=MINUTE)
            assert (bucket.points, bucket.last) == (1, value)
        (bucket,) = window(store, device, "speed_mps", step=MINUTE)
        assert (bucket.mean, bucket.minimum, bucket.maximum) == (0.5, 0.5, 0.5)

    def test_a_point_in_pieces_is_one_point(self, reopen: Reopen):
        device = new_device()
        pieces: list[dict[str, Value]] = [{"floor": 3}, {"door": "open", "x": 1.5}, {"y": "b"}, {"floor": 4, "y": "c"}]
        for piece in pieces:
            write(reopen(), reading(device, T, piece))
        store = reopen()
        expected: dict[str, Value] = {"floor": 4, "door": "open", "x": 1.5, "y": "c"}
        for name, value in expected.items():
            (bucket,) = window(store, device, name, step=MINUTE)
            assert (bucket.points, bucket.last) == (1, value)
        assert store.last_values([device])[device, ""].values == {
            name: LastValue(value, T) for name, value in expected.items()
        }

    def test_the_same_instant_of_another_part_device_or_kind_is_another_point(self, store: SeriesStore):
        device, other = new_device(), new_device()
        write(
            store,
            *(
                reading(device, T, {"temp_c": float(number)}, kind="charger", part=str(number))
                for number in range(1, 13)
            ),
            reading(device, T, {"ambient_c": 99.0}, kind="charger"),
            reading(other, T, {"temp_c": -1.0}, kind="charger", part="1"),
            reading(other + "2", T, {"motor_temp_c": 5.0}),
        )
        for number in range(1, 13):
            assert only_value(store, device, "temp_c", kind="charger", part=str(number)) == number
        assert window(store, device, "temp_c", kind="charger") == []
        assert only_value(store, other, "temp_c", kind="charger", part="1") == -1.0
        assert only_value(store, other + "2", "motor_temp_c") == 5.0
        assert set(store.last_values([device, other])) == {
            *((device, str(number)) for number in range(13) if number),
            (device, ""),
            (other, "1"),
        }

    # windows

    def test_a_window_has_its_start_and_not_its_end(self, store: SeriesStore):
        device = new_device()
        write(store, *(reading(device, T + ms, {"floor": 1 + ms, "x": float(ms)}) for ms in range(5)))
        for name in ("floor", "x"):
            assert [one.start for one in window(store, device, name, start=T + 1, end=T + 4)] == [T + 1, T + 2, T + 3]
            assert [one.start for one in window(store, device, name, start=T + 1, end=T + 2)] == [T + 1]
            assert window(store, device, name, start=T + 1, end=T + 1) == []
            assert window(store, device, name, start=T + 5, end=T + 99) == []

    def test_steps_are_whole_multiples_and_the_first_one_is_cut_by_the_start(self, store: SeriesStore):
        device, minute = new_device(), T // MINUTE * MINUTE
        times = [minute, minute + 1, minute + MINUTE - 1, minute + MINUTE, minute + 3 * MINUTE]
        write(store, *(reading(device, ts, {"speed_mps": float(number)}) for number, ts in enumerate(times)))
        found = window(store, device, "speed_mps", start=minute + 1, end=minute + 4 * MINUTE, step=MINUTE)
        assert found == [
            Bucket(minute, 2, 2.0, 1.5, 1.0, 2.0),
            Bucket(minute + MINUTE, 1, 3.0, 3.0, 3.0, 3.0),
            Bucket(minute + 3 * MINUTE, 1, 4.0, 4.0, 4.0, 4.0),
        ]

    @often
    @given(BATCHES, st.sampled_from([1, 7, 1_000, MINUTE, 90_000]), TIMES, TIMES)
    def test_down_sampling_equals_a_naive_reference(self, store: SeriesStore, batches, step: int, one: int, other: int):
        """Out of order, in pieces, again and again, all types."""
        device = new_device()
        reference = played(store, device, batches)
        for start, end in ((min(one, other), max(one, other)), (T - 5 * MINUTE, T + 5 * MINUTE)):
            for part in ("", "1", "12"):
                for field in CHARGER_FIELDS:
                    found = store.window("charger", device, part, field, start=start, end=end, step=step)
                    assert_buckets(found, reference.window(part, field, start, end, step))

    # last values and signs of life

    @reopening
    @given(BATCHES)
    def test_last_values_equal_a_naive_reference_and_survive(self, reopen: Reopen, batches):
        device, store = new_device(), reopen()
        reference = played(store, device, batches)
        for asked in before_and_after(store, reopen):
            found = asked.last_values([device])
            assert {part: held for (_, part), held in found.items()} == reference.last_values()
            seen = max(reference.alive.values(), default=None)
            assert asked.last_seen().get(device) == seen
            for (_, part), held in found.items():
                for name, (value, _) in held.values.items():
                    assert same_type(value, reference.last_values()[part].values[name].value)

    def test_of_all_devices_or_of_those_that_are_named(self, store: SeriesStore):
        devices = [new_device() for _ in range(3)]
        write(store, *(reading(device, T, {"floor": 1}) for device in devices))
        assert {device for device, _ in store.last_values()} >= set(devices)
        assert {device for device, _ in store.last_values(devices[:2])} == set(devices[:2])
        assert store.last_values([]) == {}
        assert store.last_values(["contract-site.nobody"]) == {}

    def test_an_older_sample_is_history_and_not_the_last_value(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        write(store, reading(device, T, {"floor": 5, "x": "new"}, rx=T + 100))
        write(store, reading(device, T - MINUTE, {"floor": 2, "x": "old", "door": "open"}, rx=T + 200))
        for asked in before_and_after(store, reopen):
            assert asked.last_values([device])[device, ""] == PartValues(
                "elevator",
                T,
                T + 200,  # late as it was, the device spoke
                {"floor": LastValue(5, T), "x": LastValue("new", T), "door": LastValue("open", T - MINUTE)},
            )

    def test_what_the_broker_retained_is_no_sign_of_life(self, store: SeriesStore, reopen: Reopen):
        device, other = new_device(), new_device()
        write(store, reading(device, T, {"online": True}, retained=True), reading(other, T, {"floor": 1}, rx=T + 5))
        write(store, reading(other, T + 1, {"floor": 2}, rx=T + 900, retained=True))
        for asked in before_and_after(store, reopen):
            assert device not in asked.last_seen()
            assert asked.last_values([device])[device, ""].rx is None
            assert asked.last_values([device])[device, ""].values["online"] == (True, T)
            assert asked.last_seen()[other] == T + 5
            assert only_value(asked, other, "floor", start=T + 1) == 2

    def test_a_last_will_is_no_sign_of_life(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        write(
            store, reading(device, T, {"online": True}, rx=T + 1), reading(device, T, {"online": False}, rx=T + 9_000)
        )
        for asked in before_and_after(store, reopen):
            assert asked.last_seen()[device] == T + 1
            assert asked.last_values([device])[device, ""].values["online"] == (False, T)

    def test_an_event_is_a_sign_of_life(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        write(store, event(device, T, "e-1", rx=T + 70))
        for asked in before_and_after(store, reopen):
            assert asked.last_seen()[device] == T + 70

    def test_a_device_is_seen_when_one_of_its_parts_is(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        write(store, reading(device, T, {"mains": True}, kind="charger", rx=T + 1))
        write(store, reading(device, T, {"temp_c": 1.0}, kind="charger", part="3", rx=T + 5))
        for asked in before_and_after(store, reopen):
            assert asked.last_seen()[device] == T + 5

    def test_what_was_given_away_does_not_change_afterwards(self, store: SeriesStore):
        device = new_device()
        write(store, reading(device, T, {"floor": 1}))
        before, seen = store.last_values([device]), store.last_seen()
        write(store, reading(device, T + 1, {"floor": 2}))
        assert before[device, ""].values == {"floor": LastValue(1, T)}
        assert seen[device] == T + 50

    # events

    def test_an_event_keeps_all_it_says(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        sent = [
            event(device, T, "e-1", part="3", kind="charger", table="dny", code="port-9", fault="relay_welded"),
            event(device, T - 1, "e-2", raised=False, seq=None, fault=None, clock_ok=False, retained=True),
        ]
        write(store, *sent)
        for asked in before_and_after(store, reopen):
            assert asked.events(device, start=T - 1, end=T + 1, limit=10) == sent

    def test_events_newest_first_within_borders_and_limit(self, store: SeriesStore, reopen: Reopen):
        device, other = new_device(), new_device()
        for ms in (3, 0, 4, 1, 2):
            write(store, event(device, T + ms, f"e-{ms}"), event(other, T + ms, f"e-{ms}"))
        for asked in before_and_after(store, reopen):

            def times(start: int, end: int, limit: int, asked: SeriesStore = asked) -> list[int]:
                found = asked.events(device, start=T + start, end=T + end, limit=limit)
                assert {one.device_id for one in found} <= {device}
                return [one.ts - T for one in found]

            assert times(0, 5, 10) == [4, 3, 2, 1, 0]
            assert times(1, 4, 10) == [3, 2, 1]
            assert times(0, 5, 2) == [4, 3]
            assert times(2, 2, 10) == times(5, 9, 10) == []

    def test_an_event_that_comes_again_is_one_event(self, reopen: Reopen):
        device = new_device()
        sent = event(device, T, "e-1")
        for rx in (T + 50, T + 60, T + 9_000):
            again = sent._replace(rx=rx)
            write(reopen(), again, again)
        found = reopen().events(device, start=T, end=T + 1, limit=10)
        assert [one._replace(rx=sent.rx) for one in found] == [sent]

    def test_the_end_of_a_fault_is_an_event_of_its_own_even_under_the_same_id(self, store: SeriesStore):
        device = new_device()
        write(
            store, event(device, T, "e-1"), event(device, T + 5, "e-1", raised=False), event(device, T, "e-1", part="2")
        )
        found = store.events(device, start=T, end=T + 10, limit=10)
        assert sorted((one.ts, one.part, one.raised) for one in found) == [
            (T, "", True),
            (T, "2", True),
            (T + 5, "", False),
        ]

    def test_the_limit_counts_events_and_not_repeats(self, store: SeriesStore):
        device = new_device()
        write(store, *[event(device, T + 1, "e-2")] * 5, event(device, T, "e-1"))
        assert [one.id for one in store.events(device, start=T, end=T + 9, limit=2)] == ["e-2", "e-1"]

    def test_the_newest_event_of_each_fault(self, store: SeriesStore, reopen: Reopen):
        device = new_device()
        write(
            store,
            event(device, T + 5, "e-3", raised=False),
            event(device, T, "e-1"),
            event(device, T + 1, "e-2"),
            event(device, T, "p-1", part="1", fault="smoke"),
            event(device, T + 9, "u-1", fault=None),
            event(device, T, "b-1", fault="overspeed"),
            event(device, T, "b-2", fault="overspeed", raised=False),
        )
        write(store, event(device, T, "b-1", fault="overspeed"))  # again: it does not become the later one
        for asked in before_and_after(store, reopen):
            found = {(one.part, one.fault): one.id for one in asked.newest_events() if one.device_id == device}
            assert found == {("", "alarm_button"): "e-3", ("1", "smoke"): "p-1", ("", "overspeed"): "b-2"}

    # what is heard and not written yet

    def test_the_newest_events_are_those_that_were_heard_too(self, store: SeriesStore):
        device = new_device()
        write(store, event(device, T, "e-1"), event(device, T + 5, "s-1", fault="smoke"))
        late, first = event(device, T + 9, "e-2", raised=False), event(device, T + 1, "p-1", part="1")
        store.heard(Batch((late, event(device, T + 4, "s-0", fault="smoke", raised=False), first)))
        expected = {("", "alarm_button"): late, ("", "smoke"): event(device, T + 5, "s-1", fault="smoke")}
        for _ in range(2):
            found = {(one.part, one.fault): one for one in store.newest_events() if one.device_id == device}
            assert found == expected | {("1", "alarm_button"): first}
            write(store, event(device, T + 4, "s-0", fault="smoke", raised=False), first, late)

    @often
    @given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.booleans()), max_size=8), st.integers(0, 8))
    def test_what_is_heard_counts_as_if_it_were_written(
        self, store: SeriesStore, told: list[tuple[int, str, bool]], written: int
    ):
        """Events of few instants and with few ids: they come again, and up to four come at once."""

        def said(device: str) -> list[Event | Reading]:
            events = [event(device, T + ms, f"e-{id}", raised=raised) for ms, id, raised in told]
            samples = [reading(device, T + ms, {f"x-{id}": number}) for number, (ms, id, _) in enumerate(told)]
            return [one for pair in zip(events, samples, strict=True) for one in pair]

        def known(device: str) -> Any:
            events = [(one.id, one.ts, one.raised) for one in store.newest_events() if one.device_id == device]
            return events, [part for _, part in store.last_values([device]).items()], store.last_seen().get(device)

        all_written, partly = new_device(), new_device()
        for one in said(all_written):
            write(store, one)
        for one in said(partly)[:written]:
            write(store, one)
        for one in said(partly)[written:]:
            store.heard(Batch((one,)))
        assert known(partly) == known(all_written)
        for one in said(partly)[written:]:
            write(store, one)
        assert known(partly) == known(all_written)

    # batches

    def test_an_empty_batch(self, store: SeriesStore):
        store.write(Batch(()))

    def test_readings_of_all_kinds_and_events_in_one_batch(self, store: SeriesStore):
        lift, pile = new_device(), new_device()
        write(
            store,
            reading(lift, T, {"floor": 1}),
            event(lift, T, "e-1"),
            reading(pile, T, {"temp_c": 30.0}, kind="charger", part="1"),
            reading(lift, T + 1, {"speed_mps": 0.5}),
        )
        assert only_value(store, lift, "floor") == 1
        assert only_value(store, lift, "speed_mps") == 0.5
        assert only_value(store, pile, "temp_c", kind="charger", part="1") == 30.0
        assert len(store.events(lift, start=T, end=T + 1, limit=5)) == 1

    def test_a_full_batch(self, store: SeriesStore, reopen: Reopen):
        """500 messages with a backlog each would be more; this is what a busy worker hands over."""
        device = new_device()
        write(store, *(reading(device, T + ms, {"floor": 1 + ms % 7, "x": float(ms)}) for ms in range(5_000)))
        for asked in before_and_after(store, reopen):
            (bucket,) = window(asked, device, "x", step=20 * MINUTE)
            assert bucket[1:] == (5_000, 4_999.0, 2_499.5, 0.0, 4_999.0)
