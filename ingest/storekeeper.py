"""Brings judged messages to the series store, by way of the spool when the store is away, and acknowledges them.

The worker hands parcels over and goes on judging; a thread of ours writes them, several at once when they wait. When
the store fails, or takes too long, everything that waits goes to the spool (durable, acknowledged), and so does all
that comes until the store answers. Then the spool is drained, oldest first, beside what comes: a new message passes
the spool when all its points are newer than whatever the spool holds of its device, so that no point is ever written
by an older message after a newer one. A store that is busy makes the worker wait for a moment, a full spool for as
long as it is full.

One file, because every method changes the same few lists under the same lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

import structlog

from core import clock
from core.errors import BadPayload, StoreUnavailable, TizhuangError
from core.payload import decode
from core.reading import Batch, Event, Message, Reading, Rejected
from ingest.spool import Spool, Spooled
from ingest.subscription import Delivery

WRITTEN_AT_ONCE: Final = 2_000
"""Readings and events in one write, give or take a message: a fraction of our patience for a store that works."""

DRAINED_BESIDE: Final = 500
"""Messages of the spool written between two writes of new ones."""

WAITING: Final = 4_000
"""Readings and events handed over and not yet taken up; with more than that the worker waits."""

PATIENCE_S: Final = 1.0
"""A write that takes longer than this counts as an outage for all that waits behind it."""

IDLE_S: Final = 0.2
"""How long to wait for something to do before looking whether we are to stop."""

FIRST_RETRY_S: Final = 0.2
SLOWEST_RETRY_S: Final = 5.0

OUR_BUG: Final = "could not be processed (please report this): {!r}"

_log = structlog.get_logger()


class Kept(NamedTuple):
    """A message to be stored: as it came, what it says, and the receive time it is kept under."""

    delivery: Delivery
    message: Message
    rx: int


class Parcel(NamedTuple):
    """What the worker made of one batch. All of `deliveries` is acknowledged once `kept` is durable."""

    deliveries: Sequence[Delivery]
    kept: Sequence[Kept]
    duplicates: int
    rejected: int
    """Messages that are in quarantine already."""
    held: int = 0
    """Messages that are in the spool already, and counted; they are acknowledged with the others, in their order."""


class Refusal(Protocol):
    """What a store will never take: `storage.series.Refused`."""

    @property
    def item(self) -> Reading | Event: ...
    @property
    def reason(self) -> str: ...


class Store(Protocol):
    """`storage.series.SeriesStore`, as far as it is needed here."""

    def write(self, batch: Batch) -> Sequence[Refusal]: ...
    def heard(self, batch: Batch) -> None: ...


class Quarantine(Protocol):
    """Keeps what cannot be understood or stored."""

    def keep(self, rejected: Sequence[Rejected]) -> None: ...


class Counts(NamedTuple):
    """Messages by what became of them, since the start. Taken at one moment: they balance."""

    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0
    spooled: int = 0
    acked: int = 0
    finished: int = 0
    """Received ones that are durable somewhere."""


class Storekeeper:
    """One thread hands over, another runs `run`; anybody may ask for `counts`."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        quarantine: Quarantine,
        acknowledge: Callable[[Sequence[Delivery]], int],
        *,
        limited: Callable[[Message], Message] = lambda message: message,
        patience_s: float = PATIENCE_S,
        idle_s: float = IDLE_S,
    ) -> None:
        """`limited` leaves out unknown fields that are too many, as the worker did when the message came."""
        self._store = store
        self.spool = spool
        self._quarantine = quarantine
        self._acknowledge = acknowledge
        self._limited = limited
        self._patience_s = patience_s
        self._idle_s = idle_s
        self._stop = threading.Event()
        self._lock = threading.Condition()
        self._waiting: deque[Parcel] = deque()
        self._in_hand: list[Parcel] = []
        self._since_s: float | None = None
        """When the write that is under way began."""
        self._behind: dict[str, int] = {}
        """Newest device time in the spool, Unix ms, by device id: of what this process put there."""
        # Of what an earlier process left no device time is known, only that none is much later than its receipt.
        self._behind_carried = (spool.newest_rx or 0) + clock.MAX_AHEAD_MS if spool.messages else 0
        self._counts = Counts()
        self._delay_s = 0.0
        self.away = ""
        """Why the store takes no data, or empty."""

    # the worker's side

    def hand_over(self, parcel: Parcel) -> None:
        """Returns at once, or when the parcel is in the spool. Raises SpoolFull: nothing was taken, try again."""
        with self._lock:
            while self._is_busy(parcel) and not self._is_away():
                self._lock.wait(timeout=self._patience_s / 20)
            if self._is_away():
                self._spill([*self._in_hand, *self._waiting, parcel])
                self._in_hand.clear()
                self._waiting.clear()
            else:
                self._waiting.append(self._passing(parcel))
            self._lock.notify()

    def _passing(self, parcel: Parcel) -> Parcel:
        """The part of the parcel that may pass the spool; the rest goes behind it. Raises SpoolFull."""
        if not self.spool.messages:
            self._behind.clear()
            self._behind_carried = 0
            return parcel
        held = [one for one in parcel.kept if not self._may_pass(one.message)]
        if not held:
            return parcel
        devices = {one.message.device_id for one in held}
        ahead = [*self._in_hand, *self._waiting]
        if any(one.message.device_id in devices for waiting in ahead for one in waiting.kept):
            # What is held may speak of a point of theirs too, and must come after them.
            self._spill(ahead)
            self._in_hand.clear()
            self._waiting.clear()
        self._append(held)
        self._counts = self._counts._replace(finished=self._counts.finished + len(held))
        there = set(map(id, held))
        return parcel._replace(kept=[one for one in parcel.kept if id(one) not in there], held=len(held))

    def _may_pass(self, message: Message) -> bool:
        """Whether none of its points can be in the spool too."""
        newest = max(self._behind.get(message.device_id, 0), self._behind_carried)
        return all(one.ts > newest for one in message.readings) and all(one.ts > newest for one in message.events)

    def relieve(self) -> None:
        """Sends what waits behind a stuck store to the spool. Raises SpoolFull.

        A broker that waits for acknowledgements sends nothing more, so nobody may come to hand anything over.
        """
        with self._lock:
            if (self._in_hand or self._waiting) and self._is_away():
                self._spill([*self._in_hand, *self._waiting])
                self._in_hand.clear()
                self._waiting.clear()

    def counts(self) -> Counts:
        with self._lock:
            return self._counts._replace(spooled=self.spool.messages)

    def _is_busy(self, parcel: Parcel) -> bool:
        """The store works and more waits than is good: the worker waits too, and the broker behind it."""
        waiting = sum(_size(one.kept) for one in self._waiting)
        return waiting > 0 and waiting + _size(parcel.kept) > WAITING and not self._stop.is_set()

    def _is_away(self) -> bool:
        """Whether messages go to the spool: the store failed, or does not get on with what it has in hand."""
        since_s = self._since_s  # once: the writer may end in between
        return bool(self.away) or (since_s is not None and time.monotonic() - since_s > self._patience_s)

    def _spill(self, parcels: Sequence[Parcel]) -> None:
        """All of them to the spool, in their order; with the lock held. Raises SpoolFull: none of them is."""
        self._append([one for parcel in parcels for one in parcel.kept])
        self._settle(parcels, stored=0)

    def _append(self, kept: Sequence[Kept]) -> None:
        """To the spool. Raises SpoolFull."""
        if not kept:
            return
        self.spool.append(
            [Spooled(one.delivery.topic, one.delivery.payload, one.rx, one.delivery.retained) for one in kept]
        )
        batch = _batch(kept)
        for item in batch.items:
            if self._behind.get(item.device_id, 0) < item.ts:
                self._behind[item.device_id] = item.ts
        self._store.heard(batch)

    def _settle(self, parcels: Sequence[Parcel], *, stored: int, refused: int = 0) -> None:
        """Acknowledges and counts; with the lock held."""
        deliveries = [one for parcel in parcels for one in parcel.deliveries]
        counts = self._counts
        self._counts = counts._replace(
            stored=counts.stored + stored,
            duplicate=counts.duplicate + sum(parcel.duplicates for parcel in parcels),
            quarantined=counts.quarantined + refused + sum(parcel.rejected for parcel in parcels),
            acked=counts.acked + self._acknowledge(deliveries),
            finished=counts.finished + len(deliveries) - sum(parcel.held for parcel in parcels),
        )

    # the writer's side

    def run(self, stop: threading.Event) -> None:
        """Writes until told to stop. What is not durable then stays with the broker."""
        self._stop = stop
        while not stop.is_set():
            stop.wait(self.work())

    def work(self) -> float:
        """One write, of what waits or of what is in the spool. Seconds for which the store should be left alone."""
        try:
            worked = self._write_waiting()
            if self.spool.messages:
                worked = self._drain(DRAINED_BESIDE if self._waiting else WRITTEN_AT_ONCE) or worked
        except StoreUnavailable as error:
            if not self._stop.is_set():
                self._store_failed(error)
            self._delay_s = min(self._delay_s * 2, SLOWEST_RETRY_S) if self._delay_s else FIRST_RETRY_S
            return self._delay_s if error.retry_after_s is None else error.retry_after_s
        if worked:
            self._delay_s = 0.0
            self._store_answered()
        return 0.0

    def _write_waiting(self) -> bool:
        """One write of all that waits. False: nothing did."""
        with self._lock:
            if not self._waiting and not self.spool.messages:
                self._lock.wait(timeout=self._idle_s)
            size = 0
            while self._waiting and size < WRITTEN_AT_ONCE:
                self._in_hand.append(self._waiting.popleft())
                size += _size(self._in_hand[-1].kept)
            parcels = list(self._in_hand)
        if not parcels:
            return False
        kept = [one for parcel in parcels for one in parcel.kept]
        refused = sum(self._write(some) for some in _bites(kept))
        with self._lock:
            if self._in_hand:  # else the worker lost its patience, and they are in the spool
                self._in_hand.clear()
                self._settle(parcels, stored=len(kept) - refused, refused=refused)
            self._lock.notify()
        return bool(kept)

    def _drain(self, at_most: int) -> bool:
        """The oldest messages of the spool into the store."""
        try:
            draft = self.spool.oldest(at_most)
        except OSError as error:
            raise StoreUnavailable(f"the spool cannot be read: {error.strerror or error}") from None
        if draft is None:
            return False
        kept, rejected = self._decoded(draft.messages)
        self._insist(rejected)
        refused = sum(self._write(some) for some in _bites(kept))
        with self._lock:
            self.spool.done(draft)
            counts = self._counts
            self._counts = counts._replace(
                stored=counts.stored + len(kept) - refused,
                quarantined=counts.quarantined + len(rejected) + refused,
            )
        return True

    def _decoded(self, messages: Sequence[Spooled]) -> tuple[list[Kept], list[Rejected]]:
        """They were understood when they came, but perhaps by another version of us."""
        kept, rejected = [], []
        for one in messages:
            try:
                message = decode(one.topic, one.payload, one.rx, retained=one.retained)
            except BadPayload as error:
                rejected.append(Rejected(one.topic, one.payload, str(error), one.rx))
            except Exception as error:  # noqa: BLE001 - a bug of ours: the rest of the spool must get out
                rejected.append(Rejected(one.topic, one.payload, OUR_BUG.format(error), one.rx))
            else:
                delivery = Delivery(one.topic, one.payload, one.rx, one.retained, False, 0, 0, 0)
                kept.append(Kept(delivery, self._limited(message), one.rx))
        return kept, rejected

    def _write(self, kept: Sequence[Kept]) -> int:
        """Stores the messages; returns how many of them went to quarantine instead. Raises StoreUnavailable."""
        if not kept:
            return 0
        try:
            with self._timed():
                refused = self._store.write(_batch(kept))
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a bug of ours: one message must not hold up all others
            if len(kept) == 1:
                _log.error("message parked in quarantine", topic=kept[0].delivery.topic, error=repr(error))
                self._insist([_rejected(kept[0], OUR_BUG.format(error))])
                return 1
            middle = len(kept) // 2
            return self._write(kept[:middle]) + self._write(kept[middle:])
        if not refused:
            return 0
        reasons = {id(one.item): one.reason for one in refused}
        parked = [_rejected(one, reason) for one in kept if (reason := _reason(one.message, reasons))]
        self._insist(parked)
        return len(parked)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Lets the worker see how long a write takes."""
        self._since_s = time.monotonic()
        try:
            yield
        finally:
            self._since_s = None

    def _insist(self, rejected: Sequence[Rejected]) -> None:
        """Into quarantine, however long that takes."""
        while rejected:
            try:
                self._quarantine.keep(rejected)
            except TizhuangError as error:
                if not error.retry:
                    raise
                if self._stop.wait(FIRST_RETRY_S):
                    raise StoreUnavailable("stopped before it was in quarantine") from None
            else:
                return

    def _store_failed(self, error: StoreUnavailable) -> None:
        if not self.away:
            _log.error("the series store is away; messages go to the spool, alerts go on", error=str(error))
        self.away = str(error)
        with self._lock:
            try:
                self._spill([*self._in_hand, *self._waiting])
            except TizhuangError as full:
                _log.error("nothing is acknowledged: the store is away and so is the spool", error=str(full))
                return
            self._in_hand.clear()
            self._waiting.clear()

    def _store_answered(self) -> None:
        if self.away and not self.spool.messages:
            _log.info("the series store answers again, and the spool is empty")
        elif self.away:
            _log.info("the series store answers again", spooled=self.spool.messages)
        self.away = ""


def _batch(kept: Sequence[Kept]) -> Batch:
    items: list[Reading | Event] = []
    for one in kept:
        items += one.message.readings
        items += one.message.events
    return Batch(tuple(items))


def _size(kept: Sequence[Kept]) -> int:
    """Readings and events: a message may be a backlog of a thousand."""
    return sum(len(one.message.readings) + len(one.message.events) for one in kept)


def _bites(kept: Sequence[Kept]) -> Iterator[Sequence[Kept]]:
    """The messages in parts that a store takes at once."""
    start = size = 0
    for end, one in enumerate(kept):
        more = _size([one])
        if size and size + more > WRITTEN_AT_ONCE:
            yield kept[start:end]
            start, size = end, 0
        size += more
    if start < len(kept):
        yield kept[start:]


def _reason(message: Message, reasons: dict[int, str]) -> str:
    """Why a message is not stored as a whole; empty when it is."""
    return next((reasons[id(item)] for item in (*message.readings, *message.events) if id(item) in reasons), "")


def _rejected(one: Kept, reason: str) -> Rejected:
    return Rejected(one.delivery.topic, one.delivery.payload, reason, one.rx)
