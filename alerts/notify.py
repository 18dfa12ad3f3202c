"""Telling the world: drains the outbox. Today by MQTT, retained while an incident is open, so that Node-RED, Home
Assistant or a screen in the guard's room can follow. Other ways of telling are one adapter each, later.
"""

from __future__ import annotations

import json
import threading
from typing import Final, Protocol

import paho.mqtt.client as paho
import structlog

from core import mqtt, topics
from core.clock import Clock
from core.errors import StoreUnavailable
from core.settings import Mqtt
from storage.outbox import Letter, Outbox

LOOK_S: Final = 1.0
PUBLISH_TIMEOUT_S: Final = 10.0

_log = structlog.get_logger()


class Messenger(Protocol):
    """One way of telling."""

    def tell(self, letter: Letter) -> None:
        """Returns when the other side has it. Raises OSError when it could not be told now."""


class Announcer:
    """Publishes incidents on `tizhuang/v1/{site}/alerts/{incident}`; the topic is emptied when one is closed."""

    def __init__(self, settings: Mqtt, *, patience_s: float = PUBLISH_TIMEOUT_S) -> None:
        self._settings = settings
        self._patience_s = patience_s
        self._client: paho.Client | None = None

    def tell(self, letter: Letter) -> None:
        closed = letter.kind == "closed"
        topic = topics.alert_topic(letter.payload["site"], letter.incident_id, self._settings.prefix)
        body = json.dumps({"event": letter.kind, **letter.payload}, ensure_ascii=False).encode()
        self._publish(topic, body, retain=not closed)
        if closed:
            self._publish(topic, b"", retain=True)

    def close(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()

    def _publish(self, topic: str, body: bytes, *, retain: bool) -> None:
        sent = self._connected().publish(topic, body, qos=1, retain=retain)
        sent.wait_for_publish(self._patience_s)
        if not sent.is_published():
            raise TimeoutError(f"the broker did not confirm within {self._patience_s:g} s")

    def _connected(self) -> paho.Client:
        if self._client is None:
            client = mqtt.client(self._settings)
            client.connect(*mqtt.broker(self._settings))
            client.loop_start()
            self._client = client
        return self._client


class Postman:
    """One thread that tells what the outbox holds, in order, and settles each row."""

    def __init__(self, outbox: Outbox, messenger: Messenger, who: str, now: Clock) -> None:
        self._outbox = outbox
        self._messenger = messenger
        self._who = who
        self._now = now
        self._news = threading.Event()

    def wake(self) -> None:
        """There may be something to tell."""
        self._news.set()

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._news.wait(LOOK_S)
            self._news.clear()
            try:
                self.drain(stop)
            except StoreUnavailable as error:
                _log.error("notifications wait for the records database", error=str(error))

    def drain(self, stop: threading.Event) -> int:
        """Tells everything that is free to be told; returns how many rows were settled.

        What an incident could not be told of holds back what came later of the same incident.
        """
        settled = 0
        held_back: set[int] = set()
        for letter in self._outbox.claim(self._who, now=self._now()):
            if stop.is_set():
                break
            if letter.incident_id in held_back:
                continue
            try:
                self._messenger.tell(letter)
            except (OSError, ValueError, RuntimeError) as error:  # the last two are paho's, when it is not connected
                held_back.add(letter.incident_id)
                self._outbox.failed(letter.id, str(error))
                _log.warning("an incident could not be announced yet", incident=letter.incident_id, error=str(error))
            else:
                self._outbox.sent(letter.id, now=self._now())
                settled += 1
        return settled
