"""The storekeeper with a real spool and a store in memory that fails as it is told.

Every message that was handed over is acknowledged once, and is then in the store, in the spool or in quarantine. One
file, because all of it shares that store and its storekeeper.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import SpoolFull, StoreUnavailable
from core.payload import decode
from core.reading import Batch, Event, Reading, Rejected
from ingest.spool import Spool
from ingest.storekeeper import Kept, Parcel, Storekeeper
from ingest.subscription import Delivery
from tests.servers import wait_until

NOW = 1_790_000_000_000
TOPIC = "tizhuang/v1/here/elevator/{}/telemetry"


class Refused(NamedTuple):
    item: Reading | Event
    reason: str


class Memory:
    """A series store: keeps what it is given, in order."""

    def __init__(self) -> None:
        self.down: StoreUnavailable | None = None
        self.points: dict[tuple[str, int], object] = {}
        """Floor by device and time: the last write wins."""
        self.written: list[int] = []
        """Device times, in the order of writing."""
        self.largest = 0
        """Readings and events in the largest write."""
        self.told: list[int] = []
        """Device times of batches that went elsewhere first."""
        self.slow = threading.Event()
        self.slow.set()
        self.writing = threading.Event()

    def write(self, batch: Batch) -> Sequence[Refused]:
        self.writing.set()
        self.slow.wait(10)
        self.largest = max(self.largest, len(batch.items))
        if self.down is not None:
            raise self.down
        if any(item.device_id == "here.bug" for item in batch.items):
            raise ZeroDivisionError("a bug of ours")
        refused = [Refused(item, "field type conflict") for item in batch.items if item.device_id == "here.odd"]
        self.points |= {(i.device_id, i.ts): i.fields.get("floor") for i in batch.items if isinstance(i, Reading)}
        self.written += [item.ts for item in batch.items if item.device_id == "here.lift"]
        return refused

    def heard(self, batch: Batch) -> None:
        self.told += [item.ts for item in batch.items]


class Shop:
    """A storekeeper and all that is around it. `again` is the next life of the process."""

    def __init__(self, folder: Path, limit: int = 1_000_000) -> None:
        self.folder, self.limit = folder, limit
        self.store = Memory()
        self.parked: list[Rejected] = []
        self.acked: list[int] = []
        self._sent = 0
        self.spool = self._open()
        self.keeper = self.again()

    def _open(self) -> Spool:
        return Spool(self.folder, self.limit, segment_bytes=2_000)

    def again(self, patience_s: float = 60) -> Storekeeper:
        self.spool.close()
        self.spool = self._open()
        self.keeper = Storekeeper(self.store, self.spool, self, self._acknowledge, patience_s=patience_s, idle_s=0.01)
        return self.keeper

    def keep(self, rejected: Sequence[Rejected]) -> None:
        self.parked += rejected

    def _acknowledge(self, deliveries: Sequence[Delivery]) -> int:
        self.acked += [one.mid for one in deliveries]
        return len(deliveries)

    def parcel(self, *devices: str, duplicates: int = 0, at: int | None = None, rx: int = NOW + 500) -> Parcel:
        """A message of each device, each with a device time of its own unless `at` says so; floors tell them apart."""
        kept, deliveries = [], []
        for device in devices:
            self._sent += 1
            ts = NOW + (self._sent if at is None else at)
            payload = json.dumps({"ts": ts, "floor": 1 + self._sent % 200}).encode()
            delivery = Delivery(TOPIC.format(device), payload, rx, False, False, self._sent, 1, 1)
            message = decode(delivery.topic, payload, delivery.rx)
            deliveries.append(delivery)
            kept.append(Kept(delivery, message, delivery.rx))
        return Parcel(deliveries, kept, duplicates, 0)

    def hand_over(self, *devices: str) -> None:
        self.keeper.hand_over(self.parcel(*devices))

    @property
    def balance(self) -> int:
        """Handed over in this life and carried from the last, less what became of them."""
        counts = self.keeper.counts()
        ended = counts.stored + counts.duplicate + counts.quarantined + counts.spooled
        return counts.finished + self.spool.carried - ended


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@contextmanager
def at_work(keeper: Storekeeper) -> Iterator[None]:
    """Its thread runs."""
    stop = threading.Event()
    thread = threading.Thread(target=keeper.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5)


def test_what_waits_is_written_at_once_and_then_acknowledged(shop: Shop):
    shop.hand_over("lift", "lift")
    shop.hand_over("lift")
    assert (shop.acked, shop.keeper.counts().finished) == ([], 0)
    shop.keeper.work()
    assert shop.store.written == [NOW + 1, NOW + 2, NOW + 3]
    assert shop.acked == [1, 2, 3]
    assert shop.balance == 0


def test_a_store_that_is_away_sends_everything_to_the_spool_in_order(shop: Shop):
    shop.hand_over("lift")
    shop.store.down = StoreUnavailable("gone fishing")
    assert shop.keeper.work() > 0, "it is left alone for a while"
    assert shop.keeper.away == "gone fishing"
    assert (shop.acked, shop.keeper.counts().spooled) == ([1], 1)
    shop.hand_over("lift", "lift")
    assert shop.acked == [1, 2, 3], "acknowledged before hand_over returns: it is on disk"
    assert shop.store.told == [NOW + 1, NOW + 2, NOW + 3], "pages show what devices say all the same"
    shop.keeper.work()
    assert shop.store.written == []
    shop.store.down = None
    shop.keeper.work()
    assert shop.store.written == [NOW + 1, NOW + 2, NOW + 3]
    assert (shop.keeper.away, shop.keeper.counts().stored, shop.keeper.counts().spooled) == ("", 3, 0)
    assert shop.balance == 0


def answering_with_a_spool(shop: Shop, *, at: int = 100) -> None:
    """A message of the lift is in the spool, and the store is back but has not got it yet."""
    shop.store.down = StoreUnavailable("away")
    shop.keeper.hand_over(shop.parcel("lift", at=at))
    shop.keeper.work()
    shop.store.down = None
    shop.keeper.away = ""


def test_newer_messages_pass_the_spool(shop: Shop):
    answering_with_a_spool(shop)
    shop.keeper.hand_over(shop.parcel("lift", at=101))
    shop.keeper.hand_over(shop.parcel("other", at=5))
    assert (shop.keeper.counts().spooled, shop.acked) == (1, [1])
    shop.keeper.work()
    assert shop.store.written == [NOW + 101, NOW + 100]
    assert shop.acked == [1, 2, 3]
    assert shop.balance == 0


@pytest.mark.parametrize("at", [100, 99])
def test_a_message_that_may_speak_of_a_point_in_the_spool_goes_behind_it(shop: Shop, at: int):
    answering_with_a_spool(shop)
    mixed = shop.parcel("lift", "other", at=at)
    again = mixed.deliveries[0]._replace(mid=99)
    shop.keeper.hand_over(mixed._replace(duplicates=1, deliveries=[*mixed.deliveries, again]))
    assert shop.keeper.counts().spooled == 2
    assert shop.acked == [1], "in the order in which they came: the others wait for the store"
    assert shop.balance == 0
    shop.keeper.work()
    assert shop.acked == [1, 2, 3, 99]
    assert shop.store.points["here.lift", NOW + at] == mixed.kept[0].message.readings[0].fields["floor"]
    assert shop.balance == 0


def test_after_a_restart_nothing_passes_that_could_be_in_the_spool(shop: Shop):
    """Device times of what is in it are not known any more, but none is later than five minutes after its receipt."""
    answering_with_a_spool(shop)
    shop.again()
    bound = 500 + 300_000  # what is in it was received at NOW + 500
    shop.keeper.hand_over(shop.parcel("other", at=bound))
    assert shop.keeper.counts().spooled == 2
    shop.keeper.hand_over(shop.parcel("other", at=bound + 1, rx=NOW + 501))
    assert shop.keeper.counts().spooled == 2
    shop.keeper.work()
    shop.keeper.work()
    shop.keeper.hand_over(shop.parcel("other", at=1))
    assert shop.keeper.counts().spooled == 0, "empty again: nobody is held back"
    assert shop.balance == 0


def test_the_next_life_finishes_what_the_last_one_spooled(shop: Shop):
    shop.store.down = StoreUnavailable("away")
    shop.hand_over("lift", "odd", "bug")
    shop.keeper.work()
    shop.store.down = None
    shop.again()
    assert (shop.spool.carried, shop.keeper.counts().spooled) == (3, 3)
    shop.keeper.work()
    assert shop.store.written == [NOW + 1]
    assert {one.topic.split("/")[4]: one.reason for one in shop.parked} == {
        "bug": "could not be processed (please report this): ZeroDivisionError('a bug of ours')",
        "odd": "field type conflict",
    }
    assert shop.balance == 0


def test_what_the_store_refuses_is_in_quarantine_as_it_came(shop: Shop):
    parcel = shop.parcel("lift", "odd", "lift")
    shop.keeper.hand_over(parcel)
    shop.keeper.work()
    odd = parcel.deliveries[1]
    assert shop.parked == [Rejected(odd.topic, odd.payload, "field type conflict", odd.rx)]
    counts = shop.keeper.counts()
    assert (counts.stored, counts.quarantined, shop.acked) == (2, 1, [1, 2, 3])
    assert shop.balance == 0


def test_a_batch_of_nothing_but_repeats_waits_for_what_came_before_it(shop: Shop):
    """One of them may repeat a message that is not durable yet."""
    shop.hand_over("lift")
    repeat = shop.parcel("lift")._replace(kept=[], duplicates=1)
    shop.keeper.hand_over(repeat)
    assert shop.acked == []
    shop.keeper.work()
    assert shop.acked == [1, 2]
    assert shop.balance == 0


def test_a_full_spool_takes_nothing_acknowledges_nothing_and_heals(tmp_path: Path):
    shop = Shop(tmp_path, limit=2_000)
    shop.store.down = StoreUnavailable("away")
    handed = 0
    parcel = shop.parcel("lift")
    with pytest.raises(SpoolFull):  # noqa: PT012 - somewhere in there
        for _ in range(1_000):
            shop.keeper.hand_over(parcel)
            handed += 1
            parcel = shop.parcel("lift")
            shop.keeper.work()
    assert 0 < handed == len(shop.acked)
    assert shop.balance == 0
    shop.store.down = None
    shop.keeper.work()
    shop.keeper.hand_over(parcel)
    shop.keeper.work()
    assert shop.store.written == [NOW + 1 + number for number in range(handed + 1)]


def test_a_store_and_a_spool_that_are_both_away_lose_nothing(tmp_path: Path):
    """What was handed over stays in hand, unacknowledged, until one of them takes it."""
    shop = Shop(tmp_path, limit=1)
    shop.hand_over("lift")
    shop.store.down = StoreUnavailable("away")
    shop.keeper.work()
    assert (shop.acked, shop.keeper.counts().finished) == ([], 0)
    shop.store.down = None
    shop.keeper.work()
    assert (shop.store.written, shop.acked) == ([NOW + 1], [1])


def test_how_long_the_store_wants_to_be_left_alone(shop: Shop):
    shop.hand_over("lift")
    shop.store.down = StoreUnavailable("429", retry_after_s=17.0)
    assert shop.keeper.work() == 17.0
    shop.store.down = StoreUnavailable("away")
    waits = [shop.keeper.work() for _ in range(8)]
    assert waits == sorted(waits)
    assert waits[-1] == 5.0, "no longer than this, so that recovery is seen soon"


def test_a_store_that_hangs_holds_up_nobody_but_itself(shop: Shop):
    keeper = shop.again(patience_s=0.1)
    shop.store.slow.clear()
    with at_work(keeper):
        shop.hand_over("lift")
        assert shop.store.writing.wait(5)

        def out_of_patience() -> int:
            shop.hand_over("lift")
            return shop.keeper.counts().spooled

        wait_until("out of patience", out_of_patience)
        spooled = shop.keeper.counts().spooled
        assert shop.acked == list(range(1, spooled + 1)), "the one in hand and all behind it are on disk"
        shop.store.slow.set()
        wait_until("drained", lambda: not shop.keeper.counts().spooled)
    assert sorted(set(shop.store.written)) == [NOW + 1 + number for number in range(spooled)]
    assert shop.acked == list(range(1, spooled + 1)), "none of them twice"
    assert shop.balance == 0


def test_a_store_that_hangs_is_left_behind_even_if_nothing_more_comes(shop: Shop):
    """A broker sends no more than so many messages without an acknowledgement; nobody hands anything over then."""
    keeper = shop.again(patience_s=0.05)
    shop.store.slow.clear()
    with at_work(keeper):
        shop.hand_over("lift")
        assert shop.store.writing.wait(5)
        shop.keeper.relieve()
        assert shop.acked == [], "not at once"

        def relieved() -> bool:
            keeper.relieve()
            return shop.acked == [1]

        wait_until("in the spool", relieved)
        assert keeper.counts().spooled == 1
        shop.store.slow.set()
        wait_until("drained", lambda: not keeper.counts().spooled)
    assert shop.balance == 0


def test_a_busy_store_makes_the_worker_wait_and_not_the_disk(shop: Shop):
    shop.store.slow.clear()
    with at_work(shop.keeper):
        shop.hand_over("lift")
        assert shop.store.writing.wait(5)
        shop.hand_over(*["lift"] * 3_999)
        late = threading.Thread(target=shop.hand_over, args=["lift", "lift"])
        late.start()
        late.join(0.3)
        assert late.is_alive()
        assert shop.keeper.counts().spooled == 0
        shop.store.slow.set()
        late.join(5)
        wait_until("all stored", lambda: shop.keeper.counts().stored == 4_002)
    assert shop.balance == 0


def test_a_held_message_comes_after_what_it_may_speak_of_even_if_that_had_passed(shop: Shop):
    """A backlog: one of its snapshots is as old as the spool, another corrects a point that was on its way."""
    answering_with_a_spool(shop, at=100)
    passed = shop.parcel("lift", at=105)
    shop.keeper.hand_over(passed)
    newer = shop.parcel("lift")
    body = json.dumps([{"ts": NOW + 99, "floor": 9}, {"ts": NOW + 105, "floor": 42}]).encode()
    delivery = newer.deliveries[0]._replace(payload=body)
    message = decode(delivery.topic, body, delivery.rx)
    shop.keeper.hand_over(Parcel([delivery], [Kept(delivery, message, delivery.rx)], 0, 0))
    assert shop.balance == 0
    while shop.keeper.counts().spooled or len(shop.acked) < 3:
        shop.keeper.work()
    assert shop.store.points["here.lift", NOW + 105] == 42
    assert shop.acked == [1, 2, 3]


def test_backlogs_are_written_in_bites(shop: Shop):
    """A message may hold a thousand snapshots; a store takes so many readings at once."""
    body = json.dumps([{"ts": NOW + number, "floor": 3} for number in range(1_000)]).encode()
    parcel = shop.parcel(*["lift"] * 12)
    deliveries = [one._replace(payload=body) for one in parcel.deliveries]
    kept = [Kept(one, decode(one.topic, body, one.rx), one.rx) for one in deliveries]
    shop.store.down = StoreUnavailable("away")
    shop.keeper.hand_over(Parcel(deliveries, kept, 0, 0))
    shop.keeper.work()
    shop.store.down = None
    shop.keeper.work()
    assert (shop.keeper.counts().stored, shop.balance) == (12, 0)
    assert shop.store.largest == 2_000


stories = st.lists(
    st.one_of(
        st.tuples(
            st.just("hand over"),
            st.lists(st.sampled_from(["lift", "lift", "other", "odd", "bug"]), max_size=4),
            st.integers(1, 3) | st.none(),
        ),
        st.just(("work",)),
        st.just(("down",)),
        st.just(("up",)),
        st.just(("die",)),
    ),
    max_size=30,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stories)
def test_whatever_happens_nothing_acknowledged_is_lost(tmp_path_factory: pytest.TempPathFactory, story: list[Any]):
    shop = Shop(tmp_path_factory.mktemp("spool"))
    sent: dict[int, Kept] = {}
    for word, *facts in story:
        if word == "hand over":
            parcel = shop.parcel(*facts[0], at=facts[1])
            sent |= {one.delivery.mid: one for one in parcel.kept}
            shop.keeper.hand_over(parcel)
        elif word == "work":
            shop.keeper.work()
        elif word == "die":
            shop.again()
        else:
            shop.store.down = StoreUnavailable("away") if word == "down" else None
        assert shop.balance == 0
    shop.store.down = None
    for _ in range(100):
        shop.keeper.work()
        if not shop.keeper.counts().spooled:
            break
    assert len(shop.acked) == len(set(shop.acked)), "acknowledged twice"
    allowed: dict[tuple[str, int], set[object]] = {}
    parked = {(one.topic, one.payload) for one in shop.parked}
    acked = set(shop.acked)
    for mid, one in sorted(sent.items()):
        (said,) = one.message.readings
        if said.device_id in {"here.odd", "here.bug"}:
            assert mid not in acked or (one.delivery.topic, one.delivery.payload) in parked
        elif mid in acked:
            allowed[said.device_id, said.ts] = {said.fields["floor"]}
        elif (said.device_id, said.ts) in allowed:  # unacknowledged, but perhaps in the spool already
            allowed[said.device_id, said.ts].add(said.fields["floor"])
    stored = {point: shop.store.points.get(point) for point in allowed}
    assert all(stored[point] in floors for point, floors in allowed.items()), "no older message of a point wins"
