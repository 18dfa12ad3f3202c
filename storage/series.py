"""The series store, seen from outside: what devices measured, by device, part and device time.

Two drivers keep this promise: `storage.duckdb` (embedded) and InfluxDB (production). One contract test holds both to
it: `tests/storage/series_contract.py`. A driver is one file and one line in `storage.drivers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from core.reading import Batch, Event, Reading, Value
from storage.history import History

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000


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


class Horizon(NamedTuple):
    """Device times (Unix ms, whole hours) before which a resolution is dropped. 0: nothing is."""

    raw: int = 0
    minute: int = 0
    hour: int = 0
    """Of hour rows, and of events."""


class SeriesStore(History, Protocol):
    """Points are identified by (device, part, ts): a point that comes again, whole or in pieces, lands on itself."""

    def write(self, batch: Batch) -> list[Refused]:
        """Returns when the batch is durable, but for what it names: the caller keeps that elsewhere.

        Raises StoreUnavailable: nothing or part was stored, retrying is safe.
        """

    def heard(self, batch: Batch) -> None:
        """Takes up last values and newest events of a batch that is durable elsewhere and will be written later."""

    def window(
        self, kind: str, device_id: str, part: str, field: str, *, start: int, end: int, step: int
    ) -> list[Bucket]:
        """One field from `start` (inclusive) to `end` (exclusive), down-sampled to steps of `step` ms, in order.

        Steps without a point are left out. Fields the contract does not know can be asked for like any other.

        Roll-ups change how fast the answer comes, not what it is, as long as the raw data is there. After that the
        nearest rows answer, counted whole: those that overlap the window, each at the step in which it starts
        (at the window's first step when it starts before). `storage.rollup.plan` decides, for every store.
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

    def unrolled(self) -> list[int]:
        """Hours (their start, Unix ms) whose data is not rolled up, or was written to since; oldest first.

        An hour is marked before, or together with, what is written into it: no kill loses the mark.
        """

    def roll_up(self, hour: int) -> None:
        """Makes the minute and hour rows of one hour from its raw data, in place of those that were there.

        Nothing happens where the hour is not unrolled. Killed or failed half-way, or written to meanwhile, it still is,
        and windows are right at every moment. Raises StoreUnavailable.

        An hour before the horizon of raw data has lost its points; what is written into it later is all there is of
        it. A field of a part then keeps the rows it has, unless the new ones are made of at least as many points.
        """

    def expire(self, before: Horizon) -> None:
        """Drops what is older. A horizon never goes back; last values stay. Raises StoreUnavailable.

        The horizon of raw data stops at the first unrolled hour it has not passed yet, and raw data of unrolled hours
        that it has passed stays until they are rolled up.
        """

    def close(self) -> None:
        """Flushes and releases everything."""
