"""Stored readings and events, read back in the order in which they were true: for backtests, exports and replays.

**Order.** By instant, then device id, then readings before events, then part, then as they were written. The instant of
a reading or event is its device time (`ts`). `online` and `firmware` (`core.kinds.STATUS_FIELDS`) come as readings of
their own whose instant is the receive time: a last will carries the time at which it was left with the broker, and is
true from when it was published. So each device's items are in order of device time, its statuses in between.

**One point, one reading.** What came again, or in pieces, is one reading with all its fields: `rx` is that of the last
sign of life among the pieces (of the last piece, where none is one), `seq` the last that was given.

**What is not stored** does not come back: the order of arrival, earlier values of a field that was sent twice for one
instant, and raw data before its horizon. InfluxDB does not keep whether a sample that was no sign of life was retained
or a last will: it comes back as `retained`. Nor does it keep the number of a status, nor whether that was a sign of
life: statuses come back as `retained`, and without `seq`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

from core.kinds import STATUS_FIELDS, all_fields, is_status
from core.reading import Event, Reading

Item = Reading | Event


class Spoken(NamedTuple):
    """How much is stored of one device in some time: readings, counted as they were written, and events."""

    device_id: str
    kind: str
    items: int


class History(Protocol):
    """Every series store has one; `storage.drivers.open_history` opens it alone, without the right to write."""

    def history(
        self,
        start: int,
        end: int,
        *,
        device_ids: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        fields: Collection[str] | None = None,
    ) -> Iterator[Item]:
        """Readings and events with `start` <= instant < `end`, Unix ms, of all devices where none are named.

        `fields` asks for these only, which is several times as fast for a few of them; a reading that has none of
        them comes all the same, without fields: it is a sign of life. Memory is bounded, however long the time.
        What is written meanwhile may come or not. Raises StoreUnavailable.
        """

    def spoken(self, start: int, end: int) -> list[Spoken]:
        """Who said something with `start` <= ts < `end`, by device id. Raises StoreUnavailable."""


STATUS: Final = tuple(sorted(STATUS_FIELDS))

FEW: Final = 500
"""Less than one status for so many samples: then each is put in its place, which is faster than sorting all."""

_by_ts_and_device: Final[Callable[[Item], tuple[int, str]]] = itemgetter(3, 0)
"""Readings and events have their time and their device at the same places."""


def instant(item: Item) -> int:
    """Where the item stands in the order, Unix ms."""
    if isinstance(item, Reading) and is_status(item.kind, item.fields):
        return item.rx
    return item.ts


def order(item: Item) -> tuple[int, str, bool, str]:
    """The key of the order."""
    return instant(item), item.device_id, isinstance(item, Event), item.part


def in_order(samples: Iterable[list[Item]], statuses: list[Item], events: list[Item]) -> list[Item]:
    """Runs that are each in order, as one. A device has one kind: its samples stand in one run."""
    filled = [run for run in (*samples, events) if run]
    joined = filled[0] if len(filled) == 1 else [item for run in filled for item in run]
    if len(filled) > 1:
        joined.sort(key=_by_ts_and_device)  # stable, so samples stay before events, and parts in order
    if len(statuses) * FEW > len(joined):
        joined = sorted([*joined, *statuses], key=order)
    else:
        for status in reversed(statuses):
            joined.insert(bisect_right(joined, order(status), key=order), status)
    return joined


def columns(kind: str, fields: Collection[str] | None) -> list[str]:
    """The fields of the contract that are asked for, without those of a status."""
    return [name for name in all_fields(kind) if name not in STATUS_FIELDS and (fields is None or name in fields)]
