"""A client of `tizhuang doctor`: connects, listens, speaks and waits for answers, one step after the other.

Names are made from this machine and its data folder, always the same: what a killed doctor left on the broker is
removed by the next one. The topics stand beside `tizhuang/v1/`, so that no worker hears them, and no device uses them.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode

from core import mqtt
from core.errors import TizhuangError
from core.settings import Mqtt

PATIENCE_S: Final = 5.0
"""A broker that takes longer for one answer is reported as not answering."""

QUIET_S: Final = 0.2
"""Nothing more is coming when a round trip is over and nothing came for this long."""


SOON_S: Final = 1.0
"""What the broker acknowledged is delivered within this time, if at all."""


class ProbeFailed(TizhuangError):
    """The broker refused a connection, ended it or did not answer."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        self.refused = refused
        super().__init__(reason)


class Space(NamedTuple):
    """The names that are ours on the broker."""

    mark: str
    prefix: str

    @classmethod
    def of(cls, settings: Mqtt, folder: Path) -> Space:
        text = f"{socket.gethostname()}:{folder.resolve()}"
        return cls(hashlib.sha256(text.encode()).hexdigest()[:6], settings.prefix)

    def client(self, role: str) -> str:
        """A client id of 23 characters, which every broker takes."""
        return f"tizhuang-doctor-{self.mark}{role}"

    def topic(self, *levels: str) -> str:
        return "/".join((f"{self.prefix}tizhuang-doctor", self.mark, *levels))


class Probe:
    """One connection. Raises ProbeFailed wherever the broker does not play along, SettingsError for `mqtt.ca_file`."""

    def __init__(
        self, settings: Mqtt, client_id: str, *, clean: bool = True, by_hand: bool = False, will: str | None = None
    ) -> None:
        """`by_hand`: messages are acknowledged by `acknowledge`. `will`: topic of a last will that says "will"."""
        self.received: list[paho.MQTTMessage] = []
        self.session_present = False
        self._by_hand = by_hand
        self._news = threading.Condition()
        self._answers: dict[int, bool] = {}
        self._confirmed = 0
        self._unacknowledged: list[tuple[int, int]] = []
        self._refusal: str | None = None
        self._connected = False
        self._over = False
        self._client = mqtt.client(settings, client_id, clean_session=clean, manual_ack=True, reconnect=False)
        self._client.connect_timeout = PATIENCE_S
        self._client.max_inflight_messages_set(1_000)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        if will:
            self._client.will_set(will, b"will", qos=1)
        self._connect(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def certificate(self) -> dict[str, Any]:
        """The broker's, as `ssl` gives it."""
        connection = self._client.socket()
        return dict(connection.getpeercert() or {}) if isinstance(connection, ssl.SSLSocket) else {}

    @property
    def near(self) -> bool:
        """Whether the broker answers on this machine's loopback."""
        connection = self._client.socket()
        return isinstance(connection, socket.socket) and ip_address(connection.getpeername()[0]).is_loopback

    def subscribe(self, topic: str, *, qos: int = 1) -> bool:
        """Whether the broker grants it. Some grant everything and filter later: only a message proves the right."""
        code, mid = self._client.subscribe(topic, qos)
        self._check(code)
        assert mid is not None
        self._wait("the answer to a subscription", lambda: mid in self._answers)
        return self._answers[mid]

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Returns after the PUBACK."""
        before = self._confirmed
        self.send(topic, payload, retain=retain)
        self._wait("the acknowledgement of a message", lambda: self._confirmed > before)

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Does not wait; `confirmed` counts."""
        self._check(self._client.publish(topic, payload, qos=1, retain=retain).rc)

    @property
    def confirmed(self) -> int:
        """Messages for which the PUBACK came."""
        return self._confirmed

    def wait_for(self, ready: Callable[[], object], *, timeout_s: float = PATIENCE_S) -> bool:
        """Whether it came true in time; looks again at every message and answer. Ends early with the connection."""
        with self._news:
            return bool(self._news.wait_for(lambda: self._over or ready(), timeout_s) and ready())

    def wait_until_quiet(self, space: Space, *, timeout_s: float = 15.0) -> None:
        """Returns when the broker has sent what it will send until we acknowledge."""
        deadline = time.monotonic() + timeout_s
        before = -1
        while before != len(self.received) and time.monotonic() < deadline:
            before = len(self.received)
            self._round_trip(space)
            self.wait_for(lambda: len(self.received) > before, timeout_s=QUIET_S)  # noqa: B023 - used at once

    def hears(self, space: Space, ready: Callable[[], object]) -> bool:
        """Whether it comes true before a round trip is over, or shortly after. For what is often refused."""
        if self.wait_for(ready, timeout_s=QUIET_S):
            return True
        self._round_trip(space)
        return self.wait_for(ready, timeout_s=QUIET_S)

    def acknowledge(self) -> None:
        """All that came, and from now on whatever comes."""
        with self._news:
            self._by_hand = False
            waiting, self._unacknowledged = self._unacknowledged, []
        for mid, qos in waiting:
            self._client.ack(mid, qos)

    def close(self) -> None:
        """Says goodbye: no last will."""
        self._client.disconnect()
        self._client.loop_stop()

    def drop(self) -> None:
        """Goes without a word, as a device does that loses its power."""
        connection = self._client.socket()
        if isinstance(connection, socket.socket):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # TLS is not told either
        self._client.loop_stop()

    # what paho calls, on its own thread

    def _connect(self, settings: Mqtt) -> None:
        where = mqtt.broker(settings)
        try:
            self._client.connect(where.host, where.port, keepalive=mqtt.KEEPALIVE_S)
        except ssl.SSLCertVerificationError as error:
            raise ProbeFailed(f"its certificate is not to be trusted: {error.verify_message}", refused=True) from None
        except OSError as error:
            raise ProbeFailed(f"cannot be reached: {error.strerror or error}") from None
        self._client.loop_start()
        try:
            self._wait("the answer to CONNECT", lambda: self._connected or self._refusal)
            if self._refusal:
                raise ProbeFailed(f"refused the connection: {self._refusal}", refused=True)
        except ProbeFailed:
            self.close()
            raise

    def _round_trip(self, space: Space) -> None:
        """Some brokers (rumqttd) answer nothing at all while they wait for acknowledgements: then it ends by itself."""
        before = self._confirmed
        self.send(space.topic("round-trip"), b"")
        self.wait_for(lambda: self._confirmed > before, timeout_s=SOON_S)

    def _wait(self, what: str, ready: Callable[[], object]) -> None:
        if self.wait_for(ready):
            return
        raise ProbeFailed(
            f"ended the connection instead of {what}" if self._over else f"did not send {what} in {PATIENCE_S:.0f} s"
        )

    def _check(self, code: MQTTErrorCode) -> None:
        if code is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise ProbeFailed(f"ended the connection: {paho.error_string(code)}")

    def _on_connect(self, _client: paho.Client, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        with self._news:
            self.session_present = bool(flags.session_present)
            self._refusal = str(reason).lower() if reason.is_failure else None
            self._connected = not reason.is_failure
            self._news.notify_all()

    def _on_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        with self._news:
            self._over = True
            self._news.notify_all()

    def _on_subscribe(self, _client: paho.Client, _data: Any, mid: int, reasons: Any, _properties: Any) -> None:
        with self._news:
            self._answers[mid] = not any(reason.is_failure for reason in reasons)
            self._news.notify_all()

    def _on_publish(self, _client: paho.Client, _data: Any, _mid: int, _reason: Any, _properties: Any) -> None:
        with self._news:
            self._confirmed += 1
            self._news.notify_all()

    def _on_message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        with self._news:
            self.received.append(message)
            by_hand = self._by_hand
            if by_hand:
                self._unacknowledged.append((message.mid, message.qos))
            self._news.notify_all()
        if not by_hand and message.qos:
            client.ack(message.mid, message.qos)
