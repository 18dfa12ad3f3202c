"""The series store, seen from outside: what devices measured, by device, part and device time.

Two drivers keep this promise: `storage.duckdb` (embedded) and InfluxDB (production). One contract test holds both to
it: `tests/storage/series_contract.py`. A driver is one file and one line in `storage.drivers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from core.reading import Batch, Event, Reading, Value


class Bucket(NamedTuple):
    """One field over one step of a window. Text and bools have only `last`."""

    start: int
    """Device time of the step's start, Unix ms: a whole multiple of the step."""
    points: int
    last: Value
    mean: float | None
    minimum: float | None
    maximum: float | None


class LastValue(NamedTuple):
    """The newest value of a field, and the device time it was measured at."""

    value: Value
    ts: int


class PartValues(NamedTuple):
    """What is known of one part of one device."""

    kind: str
    ts: int
    """Newest device time, Unix ms."""
    rx: int | None
    """Newest receive time of a sign of life, Unix ms; None: only ever heard from what the broker retained."""
    values: Mapping[str, LastValue]


class Refused(NamedTuple):
    """A reading or event that the store will never take, and the reason in the store's own words."""

    item: Reading | Event
    reason: str


class SeriesStore(Protocol):
    """Points are identified by (device, part, ts): a point that comes again, whole or in pieces, lands on itself."""

    def write(self, batch: Batch) -> list[Refused]:
        """Returns when the batch is durable, but for what it names: the caller keeps that elsewhere.

        Raises StoreUnavailable: nothing or part was stored, retrying is safe.
        """

    def window(
        self, kind: str, device_id: str, part: str, field: str, *, start: int, end: int, step: int
    ) -> list[Bucket]:
        """One field from `start` (inclusive) to `end` (exclusive), down-sampled to steps of `step` ms, in order.

        Steps without a point are left out. Fields the contract does not know can be asked for like any other.
        """

    def last_values(self, device_ids: Sequence[str] | None = None) -> dict[tuple[str, str], PartValues]:
        """By (device id, part); of all devices when none are named.

        The newest value is that of the newest device time; of `STATUS_FIELDS` it is the one
        that was received last.
        """

    def last_seen(self) -> dict[str, int]:
        """Newest receive time of a sign of life (`sign_of_life` of a reading or an event), by device id."""

    def events(self, device_id: str, *, start: int, end: int, limit: int) -> list[Event]:
        """Events of one device with `start` <= ts < `end`, newest first, each once."""

    def newest_events(self) -> list[Event]:
        """The newest event of each (device, part, fault), raised or cleared; at one instant the later one."""

    def close(self) -> None:
        """Flushes and releases everything."""
