"""Live values for open pages, straight from the broker: QoS 0, and only of devices that some page shows.

The worker may run in another process; pages are live all the same. What is lost here is in the series store.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import paho.mqtt.client as paho

from core import mqtt, payload
from core.clock import Clock
from core.errors import BadPayload
from core.reading import Message
from core.settings import Mqtt
from core.topics import ROOT, split_device_id

CHANNELS = ("telemetry", "status")


class Watch:
    """An MQTT client with reference-counted subscriptions. All state is touched on the event loop only."""

    def __init__(self, settings: Mqtt, now: Clock, deliver: Callable[[Message], None]) -> None:
        self._settings = settings
        self._now = now
        self._deliver = deliver
        self._pages: Counter[str] = Counter()
        """How many pages show a device, by device id."""
        self._client: paho.Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected()

    def open(self) -> None:
        """Starts to connect, in a thread of paho's; goes on trying. Without `mqtt.url` nothing is live."""
        if not self._settings.url:
            return
        self._loop = asyncio.get_running_loop()
        client = mqtt.client(self._settings, f"tizhuang-pages-{secrets.token_hex(8)}")
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        where = mqtt.broker(self._settings)
        client.connect_async(where.host, where.port, mqtt.KEEPALIVE_S)
        client.loop_start()
        self._client = client

    async def close(self) -> None:
        """Disconnects and waits for paho's thread."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)

    def show(self, device_ids: Iterable[str]) -> None:
        """A page shows these devices."""
        fresh = [one for one in device_ids if not self._pages[one]]
        self._pages.update(device_ids)
        self._subscribe(fresh)

    def hide(self, device_ids: Iterable[str]) -> None:
        """That page is gone."""
        self._pages.subtract(device_ids)
        unseen = [one for one in device_ids if self._pages[one] <= 0]
        for device_id in unseen:
            del self._pages[device_id]
        if unseen and self._client is not None and self.connected:
            self._client.unsubscribe([topic for device_id in unseen for topic in self._topics(device_id)])

    def _subscribe(self, device_ids: Iterable[str]) -> None:
        topics = [(topic, 0) for device_id in device_ids for topic in self._topics(device_id)]
        if topics and self._client is not None and self.connected:
            self._client.subscribe(topics)

    def _topics(self, device_id: str) -> list[str]:
        """Any kind: the register need not be asked, and a stranger's kind may be wrong there."""
        site, device = split_device_id(device_id)
        return [f"{self._settings.prefix}{ROOT}/{site}/+/{device}/{channel}" for channel in CHANNELS]

    def _on_connect(self, _client: paho.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        """A clean session forgets its subscriptions: ask again for all."""
        if not reason.is_failure:
            self._hand_over(lambda: self._subscribe(list(self._pages)))

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        """On paho's thread. What the broker retained is no news: the page got it from the store."""
        if message.retain:
            return
        try:
            decoded = payload.decode(message.topic, bytes(message.payload), self._now())
        except BadPayload:
            return  # the worker puts it into quarantine
        self._hand_over(lambda: self._deliver(decoded))

    def _hand_over(self, call: Callable[[], None]) -> None:
        """From paho's thread to the event loop, unless that has ended."""
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)
