"""MQTT topics of the wire contract: `[prefix/]tizhuang/v1/{site}/{kind}/{device}/{channel}`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from core.errors import BadPayload, Fault

ROOT: Final = "tizhuang/v1"
CHANNELS: Final = ("status", "telemetry", "event")
RESERVED_CHANNELS: Final = ("command", "reply")

ID_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,63}$"
"""Site and device ids: no dots, so that they survive as NATS subjects and `site.device` is one unambiguous key."""

_ID = re.compile(ID_PATTERN.removesuffix("$") + r"\Z")
_LEVELS: Final = ("site", "kind", "device", "channel")


class Address(NamedTuple):
    """Who speaks, and on which channel."""

    site: str
    kind: str
    device: str
    channel: str

    @property
    def device_id(self) -> str:
        """The key of a device everywhere behind the wire: `fenghe.lift-01`."""
        return f"{self.site}.{self.device}"

    def topic(self, prefix: str = "") -> str:
        return f"{prefix}{ROOT}/{self.site}/{self.kind}/{self.device}/{self.channel}"


@lru_cache(maxsize=65_536)
def parse(topic: str) -> Address:
    """The address in a topic; whatever stands before `tizhuang/v1/` is the broker's prefix and is ignored.

    Raises BadPayload naming the level that is wrong. Whether the kind exists is the decoder's question.
    """
    head, root, tail = topic.partition(ROOT + "/")
    levels = tail.split("/")
    if not root or (head and not head.endswith("/")) or len(levels) != 4:
        raise BadPayload.one(f"expected {ROOT}/SITE/KIND/DEVICE/CHANNEL", "topic")
    faults = [
        Fault(f"topic.{name}", "must be 1-64 of a-z, 0-9 and '-', starting with a letter or digit")
        for name, level in zip(_LEVELS, levels, strict=True)
        if not _ID.match(level)
    ]
    if faults:
        raise BadPayload(faults)
    address = Address(*levels)
    if address.channel in RESERVED_CHANNELS:
        raise BadPayload.one(f"'{address.channel}' is reserved for messages to devices", "topic.channel")
    if address.channel not in CHANNELS:
        raise BadPayload.one(f"unknown channel '{address.channel}'; known: {', '.join(CHANNELS)}", "topic.channel")
    return address


def split_device_id(device_id: str) -> tuple[str, str]:
    """`fenghe.lift-01` -> (`fenghe`, `lift-01`)."""
    site, _, device = device_id.partition(".")
    return site, device


def subscription(prefix: str = "") -> str:
    """The filter of an ingest worker: six levels and deeper, so that badly formed topics reach quarantine too.

    Our own `alerts` topics have five levels and do not match.
    """
    return f"{prefix}{ROOT}/+/+/+/+/#"


def alert_topic(site: str, incident_id: int, prefix: str = "") -> str:
    """Where an incident is announced, retained while it is open."""
    return f"{prefix}{ROOT}/{site}/alerts/{incident_id}"
