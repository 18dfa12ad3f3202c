"""What `history` must give back of every series store: what was written, once, in the order in which it was true."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings

from core.kinds import KINDS, STATUS_FIELDS, is_status
from core.reading import Batch, Event, Reading, Value
from storage.history import Item, order
from storage.series import HOUR_MS, SeriesStore
from tests.storage.series_contract import BATCHES, HOSTILE, SHARED, T, event, new_device, reading, same_type, write

few = settings(max_examples=25, deadline=None, suppress_health_check=[*SHARED, HealthCheck.data_too_large])


def told(store: SeriesStore, *devices: str, start: int = T - HOUR_MS, end: int = T + HOUR_MS, **more) -> list[Item]:
    return list(store.history(start, end, device_ids=devices, **more))


def assert_same(found: Sequence[Item], expected: Sequence[Item]) -> None:
    """Field by field. Of a status, only what every store keeps."""
    assert len(found) == len(expected)
    for one, wanted in zip(map(comparable, found), map(comparable, expected), strict=True):
        assert one == wanted
        if isinstance(one, Reading) and isinstance(wanted, Reading):
            assert all(same_type(one.fields[name], wanted.fields[name]) for name in one.fields)


def comparable(item: Item) -> Item:
    if isinstance(item, Reading) and is_status(item.kind, item.fields):
        return item._replace(seq=None, retained=True, clock_ok=True)
    return item


def folded(readings: list[Reading]) -> list[Item]:
    """The promise in the shortest words: a reading for each point, one for each time a status was received."""
    samples: dict[tuple[str, str, int], Reading] = {}
    statuses: dict[tuple[str, str, int], Reading] = {}
    for one in readings:
        said = {name: value for name, value in one.fields.items() if name in STATUS_FIELDS}
        rest: dict[str, Value] = {name: value for name, value in one.fields.items() if name not in STATUS_FIELDS}
        if said:
            statuses[one.device_id, one.part, one.rx] = one._replace(fields=said)
        if rest or not said:
            key = (one.device_id, one.part, one.ts)
            alive = one.sign_of_life
            before = samples.get(key, one._replace(retained=not alive))
            lively = alive or before.retained
            samples[key] = one._replace(
                fields={**before.fields, **rest},
                rx=one.rx if lively else before.rx,
                retained=not alive and before.retained,
                seq=before.seq if one.seq is None else one.seq,
            )
    return sorted([*samples.values(), *statuses.values()], key=order)


class HistoryContract:
    """Subclass it and provide `store`."""

    @pytest.fixture
    def store(self) -> SeriesStore:
        raise NotImplementedError

    @pytest.mark.parametrize("kind", sorted(KINDS))
    def test_readings_and_events_come_back_as_they_were_written(self, store: SeriesStore, kind: str):
        device = new_device()
        known: Value = 20.0
        items: list[Item] = [
            reading(device, T, {"signal_pct": known, "x": 2.5, "y": "b", "z": True}, kind=kind, seq=7, rx=T + 9),
            event(device, T, "e-1", kind=kind, part="2"),
            reading(device, T + 1, {}, kind=kind, rx=T + 1_000),
            reading(device, T + 2, {"y": HOSTILE}, kind=kind, clock_ok=False),
            event(device, T + 2, "e-2", kind=kind, seq=None, fault=None, raised=False, clock_ok=False, retained=True),
        ]
        write(store, *reversed(items))
        assert_same(told(store, device), items)

    @few
    @given(BATCHES)
    def test_what_came_in_pieces_and_again_is_one_reading(self, store: SeriesStore, batches):
        device = new_device()
        written: list[Reading] = []
        for batch in batches:
            items = [
                reading(
                    device, ts, {n: v for n, v in said.items() if n != "online"}, kind="charger", part=part, **facts
                )
                for part, ts, said, facts in batch
            ]
            write(store, *items)
            written += items
        assert_same(told(store, device), folded(written))

    def test_the_order_is_by_time_then_device_then_kind_of_item_then_part(self, store: SeriesStore):
        devices = sorted(new_device() for _ in range(2))
        items: list[Item] = [
            one
            for ts in (T, T + 1, T + 2)
            for device in devices
            for one in (
                reading(device, ts, {"x": 1.0}, kind="charger"),
                reading(device, ts, {"x": 1.0}, kind="charger", part="1"),
                event(device, ts, f"e-{ts}", kind="charger"),
                event(device, ts, f"e-{ts}-1", kind="charger", part="1"),
            )
        ]
        for item in reversed(items):
            write(store, item)
        assert_same(told(store, *devices), items)
        assert items == sorted(items, key=order)

    def test_two_kinds_share_one_order(self, store: SeriesStore):
        lift, pile = sorted(new_device() for _ in range(2))
        items = [
            reading(device, T + ms, {"x": 1.0}, kind=kind)
            for ms in range(4)
            for device, kind in ((lift, "elevator"), (pile, "charger"))
        ]
        write(store, *reversed(items))
        assert_same(told(store, lift, pile), items)
        assert_same(told(store, lift, pile, kinds=["charger"]), [one for one in items if one.kind == "charger"])

    def test_a_last_will_stands_where_it_was_received(self, store: SeriesStore):
        """It carries the time at which it was left with the broker."""
        device = new_device()
        born = reading(device, T, {"online": True, "firmware": "1"}, rx=T + 10)
        will = reading(device, T, {"online": False}, rx=T + 90_000)
        samples = [reading(device, T + ms, {"floor": 2}) for ms in (0, 50_000, 100_000)]
        write(store, born, *samples[:2])
        write(store, will)
        write(store, samples[2])
        assert_same(told(store, device), [samples[0], born, samples[1], will, samples[2]])
        assert_same(told(store, device, start=T + 60_000), [will, samples[2]])

    def test_borders(self, store: SeriesStore):
        device = new_device()
        items: list[Item] = []
        for ms in range(5):
            items += [reading(device, T + ms, {"x": float(ms)}), event(device, T + ms, f"e-{ms}")]
        write(store, *items)
        assert_same(told(store, device, start=T + 1, end=T + 4), items[2:8])
        assert told(store, device, start=T + 2, end=T + 2) == told(store, device, start=T + 9) == []

    def test_only_what_is_asked_for(self, store: SeriesStore):
        lift, pile, other = new_device(), new_device(), new_device()
        own = reading(lift, T, {"floor": 3, "moving": True, "x": 1.5})
        signs: list[Item] = [reading(lift, T + 1, {"moving": False}), event(lift, T + 2, "e-1")]
        empty = reading(lift, T + 1, {})
        its = reading(pile, T, {"temp_c": 20.0, "power_w": 5.0}, kind="charger", part="1")
        write(store, own, *signs, its, reading(other, T, {"floor": 1}), event(pile, T, "p-1", kind="charger"))
        assert_same(
            told(store, lift, fields=["floor"]),
            [own._replace(fields={"floor": 3}), empty, signs[1]],
        )
        assert_same(told(store, lift, fields=["x"]), [own._replace(fields={"x": 1.5}), empty, signs[1]])
        assert_same(
            told(store, pile, kinds=["charger"], fields=["temp_c"])[:1], [its._replace(fields={"temp_c": 20.0})]
        )
        assert told(store, lift, kinds=["charger"]) == told(store) == told(store, "contract-site.nobody") == []

    def test_many_devices_are_asked_for(self, store: SeriesStore):
        devices = sorted(new_device() for _ in range(60))
        items = [reading(device, T, {"floor": 1}) for device in devices]
        write(store, *items)
        assert_same(told(store, *devices[:50]), items[:50])

    def test_more_than_one_page(self, store: SeriesStore):
        """Many in one instant, and many instants: nothing is lost or told twice where a page or a slice ends."""
        devices = sorted(new_device() for _ in range(3))
        for device in devices:
            write(store, *(reading(device, T + ms // 2, {"x": 1.0}, part=str(ms % 2)) for ms in range(7_000)))
        found = told(store, *devices)
        assert len(found) == len({(one.device_id, one.part, one.ts) for one in found}) == 21_000
        assert found == sorted(found, key=order)

    def test_who_spoke(self, store: SeriesStore):
        lift, pile, silent = sorted(new_device() for _ in range(3))
        write(store, reading(lift, T, {"floor": 1}), reading(lift, T + 1, {"floor": 2}), event(lift, T, "e-1"))
        write(store, event(pile, T, "e-1", kind="charger"), reading(silent, T + 9, {"floor": 1}))
        found = {one.device_id: one for one in store.spoken(T, T + 9)}
        assert found[lift][1:] == ("elevator", 3)
        assert found[pile][1:] == ("charger", 1)
        assert silent not in found

    def test_writing_goes_on_meanwhile(self, store: SeriesStore):
        device = new_device()
        write(store, *(reading(device, T + ms, {"floor": 1}) for ms in range(10)))
        reading_on = store.history(T, T + 10, device_ids=[device])
        first: Reading | Event = next(reading_on)
        store.write(Batch((reading(device, T + 20, {"floor": 2}),)))
        assert [first, *reading_on] == told(store, device, end=T + 10)
