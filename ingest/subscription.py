"""The MQTT side of the ingest worker: a persistent QoS 1 session whose messages are acknowledged by hand.

paho's thread reads and puts messages into a bounded inbox (`ingest.stream` cuts them out of the byte stream); the
worker takes them from there. When the worker is slow the inbox fills, reading stops, and the broker keeps what it has:
back-pressure instead of memory.

An acknowledgement is a number that is only meaningful on the connection that delivered it. After a reconnect the same
number may stand for another message, so each message carries the *epoch* of its connection, and an acknowledgement of
an older epoch is dropped: the broker delivers that message again, and it is recognised as a repeat.

Two threads work here, paho's and ours. A bug that ends one of them would leave a service that hears nothing and says
nothing, so whatever they raise is kept, and `watch` raises it in a thread that somebody looks after.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import paho.mqtt.client as paho
import structlog

from core import mqtt, topics
from core.errors import TizhuangError
from core.settings import Mqtt
from ingest.stream import Publish, Stream

CLOSE_S: Final = 1.5
"""Closing waits no longer than this for a connection attempt that is under way; its thread ends with the process."""

MAX_WAITING: Final = 2_000
"""Messages read and not yet taken by the worker. Brokers allow less in flight by default (Mosquitto: 20)."""

IDLE_GAP_S: Final = 0.005
"""A batch is closed early when nothing has come for this long."""

LOOK_S: Final = 0.5
"""How often `watch` looks whether it is to stop."""

_URGENT: Final = "/event"
"""End of the topics on which an alarm button and a smoke detector speak: these wait for no batch."""

_log = structlog.get_logger()


class Delivery(NamedTuple):
    """One message as it came, with what is needed to acknowledge it."""

    topic: str
    payload: bytes
    rx: int
    retained: bool
    repeated: bool
    """The broker says that it may have sent this before."""
    mid: int
    qos: int
    epoch: int


class Subscription:
    """A running subscription. `start`, then `take` and `ack` from one thread, then `close`."""

    def __init__(
        self,
        settings: Mqtt,
        *,
        now: Callable[[], int],
        on_connection: Callable[[bool], None],
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._settings = settings
        self._broker = mqtt.broker(settings)
        self._now = now
        self._on_connection = on_connection
        self._inbox = Inbox(max_waiting)
        self._epoch = 0
        self._epoch_lock = threading.Lock()
        self._lost = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._session, name="mqtt-session", daemon=True)
        self.failed = threading.Event()
        """Set when a thread has died of an error, which `failure` holds: nothing is heard from here on."""
        self.failure: Exception | None = None
        self.connected = False
        self._client = mqtt.client(
            settings,
            settings.client_id,
            clean_session=False,
            reconnect=False,
            wrap=self._wrapped,
            crashed=self._failed_by,
        )
        self._stream: Stream | None = None
        self._client.on_connect = self._connected
        self._client.on_subscribe = self._subscribed
        self._client.on_disconnect = self._disconnected

    @property
    def received(self) -> int:
        """Messages since the start."""
        return self._inbox.received

    def start(self) -> None:
        self._thread.start()

    def take(self, at_most: int, *, wait_s: float, linger_s: float) -> list[Delivery]:
        """The next messages, as `Inbox.take` gives them out."""
        return self._inbox.take(at_most, wait_s=wait_s, linger_s=linger_s)

    def ack(self, deliveries: Sequence[Delivery]) -> int:
        """Acknowledges what this connection delivered; returns how many that were. Call when they are durable."""
        with self._epoch_lock:
            mids = [one.mid for one in deliveries if one.qos and one.epoch == self._epoch]
            if not mids or self._stream is None:
                return 0
            try:
                self._stream.acknowledge(mids)
            except (OSError, ValueError):  # the connection is gone: the broker will deliver them again
                self._lost.set()
                return 0
        return len(mids)

    def close(self) -> None:
        """Ends the connection; the session stays with the broker and collects messages until the next start."""
        self._closing.set()
        self._lost.set()
        self._inbox.close()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def watch(self, stop: threading.Event) -> None:
        """Returns when told to stop. Raises TizhuangError when a thread of the subscription has died."""
        while not stop.is_set():
            if self.failed.wait(LOOK_S) and not stop.is_set():
                raise TizhuangError("the connection to the broker is not looked after any more") from self.failure

    def _failed_by(self, error: Exception) -> None:
        """On the thread that dies of it. The first one tells the reason."""
        if not self.failed.is_set():
            self.failure = error
            self.failed.set()
            _log.error("a thread of the MQTT connection has died", error=repr(error))
        self._lost.set()

    def _session(self) -> None:
        try:
            self._stay_connected()
        except Exception as error:  # noqa: BLE001 - whatever it was: nobody connects again, and somebody must know
            self.connected = False
            self._failed_by(error)

    def _stay_connected(self) -> None:
        """One round per connection, so that the epoch moves on strictly between two of them."""
        delay_s = 0.0
        while not self._closing.is_set() and not self.failed.is_set():
            with self._epoch_lock:
                self._epoch += 1
            self._lost.clear()
            if self._closing.is_set():
                break
            epoch_started = time.monotonic()
            try:
                self._client.connect(self._broker.host, self._broker.port, keepalive=mqtt.KEEPALIVE_S)
            except OSError as error:
                _log.warning("broker unreachable", broker=f"{self._broker.host}:{self._broker.port}", error=str(error))
            else:
                self._client.loop_start()
                while not self._lost.wait(1) and self._client.socket() is not None:
                    pass
                self._hang_up()
            if time.monotonic() - epoch_started > mqtt.SLOW_RETRY_S:
                delay_s = 0.0
            delay_s = min(max(delay_s * 2, 0.2), mqtt.SLOW_RETRY_S)
            self._closing.wait(delay_s * random.uniform(0.5, 1))  # noqa: S311 - spreads reconnects, hides nothing

    def _hang_up(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        if self.connected:
            self.connected = False
            self._on_connection(False)

    def _connected(self, client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            _log.error("broker refused the connection", reason=str(reason))
            return
        client.subscribe(topics.subscription(self._settings.prefix), qos=1)

    def _subscribed(self, _client: Any, _data: Any, _mid: int, reasons: Sequence[Any], _properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            _log.error("broker refused the subscription", reason=str(reasons[0]))
            self._lost.set()  # try again later: an access list can be mended
            return
        self.connected = True
        self._on_connection(True)
        _log.info("connected to broker", broker=f"{self._broker.host}:{self._broker.port}")

    def _disconnected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._closing.is_set():
            _log.warning("connection to broker lost", reason=str(reason))
        self._lost.set()

    def _wrapped(self, sock: Any) -> Stream:
        self._stream = Stream(sock, self._deliver)
        return self._stream

    def _deliver(self, published: Sequence[Publish]) -> None:
        """On paho's thread. Waits while the inbox is full."""
        try:
            rx, epoch = self._now(), self._epoch
            deliveries = [
                Delivery(_topic(one.topic), one.payload, rx, one.retained, one.repeated, one.mid, one.qos, epoch)
                for one in published
            ]
            for one in published:
                if one.cut:
                    _log.error("a message is too large and was cut", topic=_topic(one.topic), bytes_cut=one.cut)
            self._inbox.put(deliveries)
        except Exception as error:
            self._failed_by(error)  # here, because paho takes some errors of a socket for the end of the connection
            raise


class Inbox:
    """Messages that were read and not yet taken, in order; bounded."""

    def __init__(self, limit: int, *, idle_gap_s: float = IDLE_GAP_S) -> None:
        self._limit = limit
        self._idle_gap_s = idle_gap_s
        self._messages: deque[Delivery] = deque()
        self._urgent = 0
        """How many of them are events."""
        self._changed = threading.Condition()
        self._closed = False
        self.received = 0

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Takes in what there is room for, and waits for room for the rest. After `close` nothing is taken in."""
        taken = 0
        with self._changed:
            while taken < len(deliveries) and not self._closed:
                some = deliveries[taken : taken + self._limit - len(self._messages)]
                if not some:
                    self._changed.wait()
                    continue
                self._messages.extend(some)
                self._urgent += _urgent(some)
                self.received += len(some)
                taken += len(some)
                self._changed.notify_all()

    def take(self, at_most: int, *, wait_s: float, linger_s: float) -> list[Delivery]:
        """Empty after `wait_s` of silence, else what comes within `linger_s` without a gap.

        An event ends the lingering at once: an alarm waits for no batch.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._messages, timeout=wait_s):
                return []
            deadline = time.monotonic() + linger_s
            while (
                not self._urgent
                and (had := len(self._messages)) < at_most
                and (left_s := deadline - time.monotonic()) > 0
            ):
                self._changed.wait(min(self._idle_gap_s, left_s))
                if len(self._messages) == had:
                    break
            taken = [self._messages.popleft() for _ in range(min(at_most, len(self._messages)))]
            self._urgent -= _urgent(taken)
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _urgent(deliveries: Sequence[Delivery]) -> int:
    return sum(one.topic.endswith(_URGENT) for one in deliveries)


@lru_cache(100_000)
def _topic(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "(topic is not UTF-8)"
