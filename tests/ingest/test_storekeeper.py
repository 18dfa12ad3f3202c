"""The storekeeper with a real spool and a store in memory that fails as it is told.

Every message that was handed over is acknowledged once, and is then in the store, in the spool or in quarantine.
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
        self.written: list[int] = []
        """Device times, in the order of writing."""
        self.told: list[int] = []
        """Device times of batches that went elsewhere first."""
        self.slow = threading.Event()
        self.slow.set()
        self.writing = threading.Event()

    def write(self, batch: Batch) -> Sequence[Refused]:
        self.writing.set()
        self.slow.wait(10)
        if self.down is not None:
            raise self.down
        if any(item.device_id == "here.bug" for item in batch.items):
            raise ZeroDivisionError("a bug of ours")
        refused = [Refused(item, "field type conflict") for item in batch.items if item.device_id == "here.odd"]
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
        self.keeper = Storekeeper(self.store, self.spool, self, self._acknowledge, patience_s=patience_s)
        return self.keeper

    def keep(self, rejected: Sequence[Rejected]) -> None:
        self.parked += rejected

    def _acknowledge(self, deliveries: Sequence[Delivery]) -> int:
        self.acked += [one.mid for one in deliveries]
        return len(deliveries)

    def parcel(self, *devices: str, duplicates: int = 0) -> Parcel:
        kept, deliveries = [], []
        for device in devices:
            self._sent += 1
            payload = json.dumps({"ts": NOW + self._sent, "floor": 3}).encode()
            delivery = Delivery(TOPIC.format(device), payload, NOW + 500, False, False, self._sent, 1, 1)
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


def test_new_messages_queue_behind_the_spool_until_it_is_empty(shop: Shop):
    shop.store.down = StoreUnavailable("away")
    shop.hand_over("lift")
    shop.keeper.work()
    shop.store.down = None
    shop.hand_over("lift")
    assert shop.keeper.counts().spooled == 2
    shop.keeper.work()
    shop.hand_over("lift")
    assert shop.keeper.counts().spooled == 0
    shop.keeper.work()
    assert shop.store.written == [NOW + 1, NOW + 2, NOW + 3]
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


stories = st.lists(
    st.one_of(
        st.tuples(st.just("hand over"), st.lists(st.sampled_from(["lift", "lift", "odd", "bug"]), max_size=4)),
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
    sent: dict[int, str] = {}
    for word, *facts in story:
        if word == "hand over":
            parcel = shop.parcel(*facts[0])
            sent |= {one.mid: one.topic.split("/")[4] for one in parcel.deliveries}
            shop.keeper.hand_over(parcel)
        elif word == "work":
            shop.keeper.work()
        elif word == "die":
            shop.again()
        else:
            shop.store.down = StoreUnavailable("away") if word == "down" else None
        assert shop.balance == 0
    shop.store.down = None
    while shop.keeper.counts().spooled:
        shop.keeper.work()
    assert len(shop.acked) == len(set(shop.acked)), "acknowledged twice"
    acked = {mid: sent[mid] for mid in shop.acked}
    assert {NOW + mid for mid, device in acked.items() if device == "lift"} <= set(shop.store.written)
    parked = {json.loads(one.payload)["ts"] for one in shop.parked}
    assert {NOW + mid for mid, device in acked.items() if device != "lift"} <= parked
