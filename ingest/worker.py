"""The ingest worker: receive -> decode -> judge -> store or spool -> acknowledge.

A message is acknowledged when the alerts that follow from it are written and it is in the series store, in the spool
on its way there, or in quarantine with the reason. Until then it belongs to the broker, which delivers it again if we
die. A records database that does not answer is asked again for as long as it takes.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import structlog

from core.errors import BadPayload, TizhuangError
from core.payload import decode
from core.reading import Batch, Event, Message, Reading, Receipt, Rejected
from core.stats import IngestStats
from ingest.repeats import Repeats, UnknownFields
from ingest.storekeeper import OUR_BUG, Kept, Parcel, Storekeeper
from ingest.subscription import Delivery

MAX_BATCH: Final = 500
LINGER_S: Final = 0.01
FIRST_RETRY_S: Final = 0.1
SLOWEST_RETRY_S: Final = 5.0

_log = structlog.get_logger()


class Source(Protocol):
    """Where messages come from: `ingest.subscription.Subscription`."""

    connected: bool

    @property
    def received(self) -> int: ...
    def take(self, at_most: int, *, wait_s: float, linger_s: float) -> list[Delivery]: ...


class Judge(Protocol):
    """Looks at batches before they are stored: `alerts.desk.AlertDesk`."""

    def accept(self, batch: Batch) -> None:
        """Returns when what follows is durable. An error with `retry` set is worth trying again; others are not."""


class Quarantine(Protocol):
    """Keeps what cannot be understood."""

    def keep(self, rejected: Sequence[Rejected]) -> None: ...


class Receipts(Protocol):
    """Remembers when messages without a usable clock came first."""

    def settle(self, receipts: Sequence[Receipt]) -> list[int]: ...
    def known(self, digests: Sequence[str]) -> dict[str, int]: ...


class _Decoded(NamedTuple):
    delivery: Delivery
    message: Message
    rx: int
    """The receive time it is kept under: the first one, of a message without a usable clock."""


class Worker:
    """One thread's work. `run` returns when `stop` is set; `stats` may be asked from any thread."""

    def __init__(
        self,
        source: Source,
        judge: Judge,
        keeper: Storekeeper,
        quarantine: Quarantine,
        receipts: Receipts,
        unknown: UnknownFields,
        *,
        kind_of: Callable[[str], str | None] = lambda _: None,
        on_flow: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`kind_of` answers which kind a device is known as; one that speaks as another kind is not believed.

        `on_flow` hears false when a database or a full spool holds the worker up, and true when it goes on.
        """
        self._source = source
        self._judge = judge
        self._keeper = keeper
        self._quarantine = quarantine
        self._receipts = receipts
        self._kind_of = kind_of
        self._on_flow = on_flow
        self._strangers: dict[str, str] = {}
        """Kind by device id, of devices that spoke before anybody could know them."""
        self._clockless: dict[str, int] = {}
        """The last instant given to a message without a usable clock, by device id."""
        self._repeats = Repeats()
        self._unknown = unknown
        self._stop = threading.Event()
        self._counts = dict.fromkeys(("readings", "events", "clockless"), 0)
        self._blocked_by = ""

    def run(self, stop: threading.Event) -> None:
        self._stop = stop
        while not stop.is_set():
            deliveries = self._source.take(MAX_BATCH, wait_s=0.2, linger_s=LINGER_S)
            if deliveries:
                self.settle(deliveries)
            self._insist(self._keeper.relieve)

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Judges one batch and hands it over to be stored and acknowledged; gives up because of a stop."""
        decoded, rejected, duplicates = self._decode(deliveries)
        decoded = self._without_clock(decoded)
        if rejected and not self._insist(lambda: self._quarantine.keep(rejected)):
            return
        judged = self._judged(decoded)
        if judged is not None:
            parked = len(decoded) - len(judged)
            parcel = Parcel(deliveries, judged, duplicates, len(rejected) + parked)
            self._insist(lambda: self._keeper.hand_over(parcel))

    def stats(self) -> IngestStats:
        """Counts of now. They balance but for messages that are on their way from one thread to the next."""
        spool, kept = self._keeper.spool, self._keeper.counts()
        received = self._source.received
        return IngestStats(
            connected=self._source.connected,
            received=received,
            carried=spool.carried,
            in_flight=received - kept.finished,
            stored=kept.stored,
            duplicate=kept.duplicate,
            quarantined=kept.quarantined,
            spooled=kept.spooled,
            spool_bytes=spool.bytes,
            spool_limit_bytes=spool.limit_bytes,
            spool_oldest_rx=spool.oldest_rx,
            acked=kept.acked,
            unknown_fields=len(self._unknown),
            unknown_fields_dropped=self._unknown.dropped,
            store_away=self._keeper.away,
            blocked_by=self._blocked_by,
            **self._counts,
        )

    def _decode(self, deliveries: Sequence[Delivery]) -> tuple[list[_Decoded], list[Rejected], int]:
        decoded: list[_Decoded] = []
        rejected: list[Rejected] = []
        duplicates = 0
        for one in deliveries:
            try:
                message = decode(one.topic, one.payload, one.rx, retained=one.retained)
                self._check_kind(message)
            except BadPayload as error:
                rejected.append(Rejected(one.topic, one.payload, str(error), one.rx))
                continue
            except Exception as error:  # noqa: BLE001 - a bug of ours: this message waits for its mending, others go on
                _log.error("message parked in quarantine", topic=one.topic, error=repr(error))
                rejected.append(Rejected(one.topic, one.payload, OUR_BUG.format(error), one.rx))
                continue
            if self._repeats.is_repeat(one.topic, one.payload) and (message.clock_ok or _may_repeat(one, message)):
                duplicates += 1
            else:
                decoded.append(_Decoded(one, self._unknown.limit(message), one.rx))
        return decoded, rejected, duplicates

    def _check_kind(self, message: Message) -> None:
        known = self._kind_of(message.device_id) or self._strangers.setdefault(message.device_id, message.kind)
        if known != message.kind:
            raise BadPayload.one(f"device '{message.device_id}' is known as '{known}'", "topic.kind")

    def _without_clock(self, decoded: list[_Decoded]) -> list[_Decoded]:
        """Messages without a usable device time get the time at which they came *first*, even after a restart."""
        clockless = [one for one in decoded if not one.message.clock_ok]
        # A time that was too far ahead when the message came first may be believable when it comes again.
        doubtful = [one for one in decoded if one.message.clock_ok and one.delivery.repeated]
        first: dict[int, int] = {}
        receipts = [_receipt(one, self._own_instant(one)) for one in clockless]

        def look_up() -> None:
            if clockless:
                settled = self._receipts.settle(receipts)
                first.update((id(one), rx) for one, rx in zip(clockless, settled, strict=True))
            if doubtful:
                known = self._receipts.known([_digest(one.delivery) for one in doubtful])
                first.update((id(one), known[digest]) for one in doubtful if (digest := _digest(one.delivery)) in known)

        if (clockless or doubtful) and not self._insist(look_up):
            return decoded
        self._counts["clockless"] += len(first)
        return [self._as_received(one, first.get(id(one), one.delivery.rx)) for one in decoded]

    def _own_instant(self, one: _Decoded) -> int:
        """When a message without a clock came, made unique for its device: two that came at once are two points."""
        device_id, samples = one.message.device_id, max(1, len(one.message.readings))
        # The snapshots of a backlog stand one millisecond apart and end where it came.
        instant = max(one.delivery.rx, self._clockless.get(device_id, 0) + samples)
        self._clockless[device_id] = instant
        return instant

    def _as_received(self, one: _Decoded, rx: int) -> _Decoded:
        """The message as it would have been decoded at another time."""
        if rx == one.delivery.rx:
            return one
        message = decode(one.delivery.topic, one.delivery.payload, rx, retained=one.delivery.retained)
        return _Decoded(one.delivery, self._unknown.limit(message), rx)

    def _judged(self, decoded: Sequence[_Decoded]) -> list[Kept] | None:
        """Those to be stored. One that cannot be judged is parked, so that it never holds up others. None: stopped."""
        if not decoded:
            return []
        batch = _batch(decoded)
        try:
            if not self._insist(lambda: self._judge.accept(batch)):
                return None
        except Exception as error:  # noqa: BLE001 - a bug of ours must not stop the rescue of the others
            if len(decoded) == 1:
                return [] if self._park(decoded[0].delivery, error) else None
            _log.error("a batch could not be judged; trying its messages one by one", error=repr(error))
            each = [self._judged([one]) for one in decoded]
            return None if None in each else [kept for one in each if one for kept in one]
        self._counts["readings"] += sum(len(one.message.readings) for one in decoded)
        self._counts["events"] += sum(len(one.message.events) for one in decoded)
        return [Kept(one.delivery, one.message, one.rx) for one in decoded]

    def _park(self, delivery: Delivery, error: Exception) -> bool:
        _log.error("message parked in quarantine", topic=delivery.topic, error=repr(error))
        rejected = [Rejected(delivery.topic, delivery.payload, OUR_BUG.format(error), delivery.rx)]
        return self._insist(lambda: self._quarantine.keep(rejected))

    def _insist(self, work: Callable[[], object]) -> bool:
        """Does the work, again and again while it fails in a way that can heal. False: we were told to stop."""
        delay_s = FIRST_RETRY_S
        while True:
            try:
                work()
            except TizhuangError as error:
                if not error.retry:
                    raise
                if not self._blocked_by:
                    _log.error("waiting; nothing is acknowledged meanwhile", error=str(error))
                    self._on_flow(False)
                self._blocked_by = str(error)
                if self._stop.wait(delay_s):
                    return False
                delay_s = min(delay_s * 2, SLOWEST_RETRY_S)
            else:
                if self._blocked_by:
                    _log.info("going on")
                    self._blocked_by = ""
                    self._on_flow(True)
                return True


def _batch(decoded: Sequence[_Decoded]) -> Batch:
    items: list[Reading | Event] = []
    for one in decoded:
        items += one.message.readings
        items += one.message.events
    return Batch(tuple(items))


def _may_repeat(delivery: Delivery, message: Message) -> bool:
    """Whether the same bytes without a usable clock can be the same message, and not just the same news."""
    return message.has_seq or delivery.repeated or delivery.retained


def _receipt(one: _Decoded, rx: int) -> Receipt:
    return Receipt(_digest(one.delivery), rx, _may_repeat(one.delivery, one.message))


def _digest(delivery: Delivery) -> str:
    return hashlib.blake2b(delivery.topic.encode() + b"\0" + delivery.payload, digest_size=16).hexdigest()
