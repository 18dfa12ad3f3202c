"""A paho client made from our settings, not yet connected: the one place that knows addresses, TLS and credentials.

Ingest, simulators, notifications and live pages each connect their own and own its life.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from core.errors import SettingsError
from core.settings import Mqtt

Wrap = Callable[[Any], Any]
"""What stands between paho and its socket; see `ingest.stream`."""

Crashed = Callable[[Exception], None]
"""Hears which error ended paho's thread; on that thread."""

KEEPALIVE_S = 60
QUICK_RETRY_S, SLOW_RETRY_S = 1, 30


class Broker(NamedTuple):
    """Where to connect."""

    host: str
    port: int


class _Client(paho.Client):
    """Lets somebody stand between paho and its socket, and hear of the death of its thread."""

    wrap: Wrap | None = None
    crashed: Crashed | None = None

    def _create_socket(self) -> Any:
        made = super()._create_socket()
        return self.wrap(made) if self.wrap else made

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        """What paho's own thread runs. An error that ends it is told, where somebody wants to know."""
        try:
            return super().loop_forever(timeout, retry_first_connection)
        except Exception as error:
            if self.crashed is None:
                raise
            self.crashed(error)
            return MQTTErrorCode.MQTT_ERR_UNKNOWN


def broker(settings: Mqtt) -> Broker:
    """Host and port behind `mqtt.url`."""
    parts = urlsplit(settings.url)
    return Broker(parts.hostname or "", parts.port or (8883 if parts.scheme == "mqtts" else 1883))


def client(
    settings: Mqtt,
    client_id: str = "",
    *,
    clean_session: bool = True,
    manual_ack: bool = False,
    reconnect: bool = True,
    wrap: Wrap | None = None,
    crashed: Crashed | None = None,
) -> paho.Client:
    """An unconnected MQTT 3.1.1 client (the version that Mosquitto, NATS, EMQX and rumqttd all speak)."""
    parts = urlsplit(settings.url)
    made = _Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=clean_session,
        protocol=paho.MQTTv311,
        manual_ack=manual_ack,
        reconnect_on_failure=reconnect,
    )
    made.wrap, made.crashed = wrap, crashed
    made.reconnect_delay_set(QUICK_RETRY_S, SLOW_RETRY_S)
    if parts.username:
        made.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
    if parts.scheme == "mqtts":
        try:
            made.tls_set_context(ssl.create_default_context(cafile=settings.ca_file))
        except OSError as error:  # ssl.SSLError is one too
            raise SettingsError(f"mqtt.ca_file: {settings.ca_file}: {error.strerror or error}") from None
    return made
