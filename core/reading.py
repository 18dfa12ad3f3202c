"""What a device said, after decoding: immutable records that every room behind the wire works with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

Value = bool | int | float | str


class Reading(NamedTuple):
    """Some fields of one part of one device at one instant.

    `part` is "" for the device itself, the port number as text ("3") for a charging port. Fields hold only what was
    sent: an absent field keeps its last value (and age) elsewhere. Same device, part and `ts`: the same point.
    """

    device_id: str
    kind: str
    part: str
    ts: int
    """Device time, Unix ms; the receive time where the device's clock could not be believed (`clock_ok` is False)."""
    rx: int
    """Our receive time, Unix ms."""
    seq: int | None
    fields: Mapping[str, Value]
    clock_ok: bool = True
    retained: bool = False
    """Kept by the broker from earlier: true, but no sign of life."""

    @property
    def sign_of_life(self) -> bool:
        """Whether the device itself spoke just now. A last will is the broker's word, not the device's."""
        return not self.retained and self.fields.get("online") is not False


class Event(NamedTuple):
    """A fault code that was raised or cleared by the device itself."""

    device_id: str
    kind: str
    part: str
    ts: int
    rx: int
    seq: int | None
    id: str
    table: str
    code: str
    fault: str | None
    """Name in the fault catalogue; None where the table does not know the code."""
    raised: bool
    clock_ok: bool = True
    retained: bool = False

    @property
    def sign_of_life(self) -> bool:
        return not self.retained


class Message(NamedTuple):
    """One decoded MQTT message."""

    device_id: str
    kind: str
    readings: tuple[Reading, ...]
    events: tuple[Event, ...]
    unknown_fields: frozenset[str]
    """Names of extra fields the contract does not know; their values stand in the readings all the same."""
    clock_ok: bool
    has_seq: bool
    unknown_dropped: int = 0
    """Values of extra fields that were left out: too many in one snapshot, a name too long, or those of an event."""


class Batch(NamedTuple):
    """What a sink accepts at once: readings and events in the order in which they arrived."""

    items: tuple[Reading | Event, ...]

    @property
    def readings(self) -> list[Reading]:
        return [item for item in self.items if isinstance(item, Reading)]

    @property
    def events(self) -> list[Event]:
        return [item for item in self.items if isinstance(item, Event)]


class Rejected(NamedTuple):
    """A message that could not become readings, and why."""

    topic: str
    payload: bytes
    reason: str
    rx: int


class Receipt(NamedTuple):
    """A message whose device has no usable clock: what it says, when it came, and whether it can be a repeat.

    Without a sequence number and without the broker's redelivery mark, the same bytes again are news.
    """

    digest: str
    rx: int
    may_repeat: bool
