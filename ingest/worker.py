"""The ingest worker: receive -> decode -> hand a batch to every sink -> acknowledge.

A message is acknowledged when every sink has it durably, or when it is in quarantine with the reason. Until then it
belongs to the broker, which delivers it again if we die. A database that does not answer is asked again for as long as
it takes; nothing is acknowledged meanwhile, and the broker holds the rest back.
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
from ingest.subscription import Delivery

MAX_BATCH: Final = 500
LINGER_S: Final = 0.05
FIRST_RETRY_S: Final = 0.1
SLOWEST_RETRY_S: Final = 5.0
_OUR_BUG: Final = "could not be processed (please report this): {!r}"

_log = structlog.get_logger()


class Source(Protocol):
    """Where messages come from: `ingest.subscription.Subscription`."""

    received: int
    connected: bool

    def take(self, at_most: int, *, wait_s: float, linger_s: float) -> list[Delivery]: ...
    def ack(self, deliveries: Sequence[Delivery]) -> int: ...


class Sink(Protocol):
    """Takes batches for good."""

    def accept(self, batch: Batch) -> None:
        """Returns when the batch is durable. An error with `retry` set is worth trying again; others are not."""


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


class Worker:
    """One thread's work. `run` returns when `stop` is set; `stats` may be asked from any thread."""

    def __init__(
        self,
        source: Source,
        sinks: Sequence[Sink],
        quarantine: Quarantine,
        receipts: Receipts,
        *,
        kind_of: Callable[[str], str | None] = lambda _: None,
        on_flow: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`kind_of` answers which kind a device is known as; one that speaks as another kind is not believed.

        `on_flow` hears false when a database holds the worker up, and true when it goes on.
        """
        self._source = source
        self._sinks = tuple(sinks)
        self._quarantine = quarantine
        self._receipts = receipts
        self._kind_of = kind_of
        self._on_flow = on_flow
        self._strangers: dict[str, str] = {}
        """Kind by device id, of devices that spoke before anybody could know them."""
        self._repeats = Repeats()
        self._unknown = UnknownFields()
        self._stop = threading.Event()
        self._counts = dict.fromkeys(
            ("stored", "duplicate", "quarantined", "acked", "readings", "events", "clockless"), 0
        )
        self._finished = 0
        """Messages brought to their end, whichever: counted apart from the outcomes, so that the balance can fail."""
        self._blocked_by = ""

    def run(self, stop: threading.Event) -> None:
        self._stop = stop
        while not stop.is_set():
            deliveries = self._source.take(MAX_BATCH, wait_s=0.2, linger_s=LINGER_S)
            if deliveries:
                self.settle(deliveries)

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Brings one batch to its end: durable and acknowledged, or given up because of a stop."""
        decoded, rejected, duplicates = self._decode(deliveries)
        decoded = self._without_clock(decoded)
        kept = self._insist(lambda: self._quarantine.keep(rejected)) if rejected else True
        if kept and self._store(decoded):
            self._counts["quarantined"] += len(rejected)
            self._counts["duplicate"] += duplicates
            self._counts["acked"] += self._source.ack(deliveries)
            self._finished += len(deliveries)

    def stats(self) -> IngestStats:
        received = self._source.received
        return IngestStats(
            connected=self._source.connected,
            received=received,
            in_flight=received - self._finished,
            unknown_fields=len(self._unknown),
            unknown_fields_dropped=self._unknown.dropped,
            blocked_by=self._blocked_by,
            **self._counts,  # type: ignore[arg-type] # all of them ints
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
                rejected.append(Rejected(one.topic, one.payload, _OUR_BUG.format(error), one.rx))
                continue
            if self._repeats.is_repeat(one.topic, one.payload) and (message.clock_ok or _may_repeat(one, message)):
                duplicates += 1
            else:
                decoded.append(_Decoded(one, self._unknown.limit(message)))
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

        def look_up() -> None:
            if clockless:
                settled = self._receipts.settle([_receipt(one) for one in clockless])
                first.update((id(one), rx) for one, rx in zip(clockless, settled, strict=True))
            if doubtful:
                known = self._receipts.known([_digest(one.delivery) for one in doubtful])
                first.update((id(one), known[digest]) for one in doubtful if (digest := _digest(one.delivery)) in known)

        if (clockless or doubtful) and not self._insist(look_up):
            return decoded
        self._counts["clockless"] += len(first)
        return [self._as_received(one, first.get(id(one), one.delivery.rx)) for one in decoded]

    def _as_received(self, one: _Decoded, rx: int) -> _Decoded:
        """The message as it would have been decoded at another time."""
        if rx == one.delivery.rx:
            return one
        message = decode(one.delivery.topic, one.delivery.payload, rx, retained=one.delivery.retained)
        return _Decoded(one.delivery, self._unknown.limit(message))

    def _store(self, decoded: Sequence[_Decoded]) -> bool:
        """All sinks have all of it. A message that a sink cannot digest is parked, so that it never holds up others."""
        if not decoded:
            return True
        batch = _batch(decoded)
        for sink in self._sinks:
            try:
                if not self._insist(lambda sink=sink: sink.accept(batch)):  # type: ignore[misc]
                    return False
            except Exception as error:  # noqa: BLE001 - a bug of ours must not stop the rescue of the others
                if len(decoded) == 1:
                    return self._park(decoded[0].delivery, error)
                _log.error("a sink refused a batch; trying its messages one by one", error=repr(error))
                return all(self._store([one]) for one in decoded)
        self._counts["stored"] += len(decoded)
        self._counts["readings"] += sum(len(one.message.readings) for one in decoded)
        self._counts["events"] += sum(len(one.message.events) for one in decoded)
        return True

    def _park(self, delivery: Delivery, error: Exception) -> bool:
        _log.error("message parked in quarantine", topic=delivery.topic, error=repr(error))
        rejected = [Rejected(delivery.topic, delivery.payload, _OUR_BUG.format(error), delivery.rx)]
        kept = self._insist(lambda: self._quarantine.keep(rejected))
        self._counts["quarantined"] += kept
        return kept

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
                    _log.error("waiting for a database; nothing is acknowledged meanwhile", error=str(error))
                    self._on_flow(False)
                self._blocked_by = str(error)
                if self._stop.wait(delay_s):
                    return False
                delay_s = min(delay_s * 2, SLOWEST_RETRY_S)
            else:
                if self._blocked_by:
                    _log.info("the database answers again")
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


def _receipt(one: _Decoded) -> Receipt:
    return Receipt(_digest(one.delivery), one.delivery.rx, _may_repeat(one.delivery, one.message))


def _digest(delivery: Delivery) -> str:
    return hashlib.blake2b(delivery.topic.encode() + b"\0" + delivery.payload, digest_size=16).hexdigest()
