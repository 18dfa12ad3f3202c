"""Which hours hold data that is not rolled up, and which devices wrote it: the marks, in memory.

The database holds the same hours, so that no kill loses one. An hour is never missing here while it is marked there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from core.reading import Reading
from storage.series import HOUR_MS

MANY: Final = 500
"""More devices than this are not remembered one by one: then the hour is unrolled for all of them."""


@dataclass(slots=True)
class _Hour:
    devices: set[str] | None
    """Who wrote into it; None: anybody may have."""
    since: set[str] | None = field(default_factory=set)
    """The same, since its roll-up began."""
    durable: bool = False


class Unrolled:
    """Has a lock of its own, held for an instant: readers do not wait for writes."""

    def __init__(self, hours: Iterable[int]) -> None:
        """`hours` that the database has marked; who wrote into them is not known any more."""
        self._lock = threading.Lock()
        self._hours = {hour: _Hour(None, durable=True) for hour in hours}

    def touch(self, readings: Iterable[Reading]) -> list[int]:
        """Before anything is written. Returns the hours that are not marked in the database yet."""
        touched: dict[int, set[str]] = {}
        for reading in readings:
            touched.setdefault(reading.ts // HOUR_MS * HOUR_MS, set()).add(reading.device_id)
        with self._lock:
            for hour, devices in touched.items():
                held = self._hours.setdefault(hour, _Hour(set()))
                held.devices = _with(held.devices, devices)
                held.since = _with(held.since, devices)
            return [hour for hour in touched if not self._hours[hour].durable]

    def marked(self, hours: Iterable[int]) -> None:
        """The database has these marks now."""
        with self._lock:
            for hour in hours:
                self._hours[hour].durable = True

    def unmark(self, hours: Iterable[int] | None = None) -> None:
        """The database may not have these marks (or any) any more: whoever writes there next marks them again."""
        with self._lock:
            for hour in self._hours if hours is None else hours:
                self._hours[hour].durable = False

    def hours(self) -> list[int]:
        with self._lock:
            return sorted(self._hours)

    def of(self, device_id: str) -> frozenset[int]:
        """The hours that are unrolled for one device."""
        with self._lock:
            return frozenset(
                hour for hour, held in self._hours.items() if held.devices is None or device_id in held.devices
            )

    def __contains__(self, hour: int) -> bool:
        with self._lock:
            return hour in self._hours

    def begin(self, hour: int) -> frozenset[str] | None:
        """A roll-up of an unrolled hour begins, while nobody writes. Returns whose data is to be rolled; None: all."""
        with self._lock:
            held = self._hours[hour]
            held.since = set()
            return None if held.devices is None else frozenset(held.devices)

    def rolled(self, hour: int) -> bool:
        """All that was there at `begin` is rolled up. Whether that is all there is; if not, the rest is left to do."""
        with self._lock:
            held = self._hours[hour]
            held.devices = held.since
            return held.since is not None and not held.since

    def forget(self, hour: int) -> None:
        """The database has dropped the mark."""
        with self._lock:
            del self._hours[hour]


def _with(held: set[str] | None, more: set[str]) -> set[str] | None:
    if held is None:
        return None
    held |= more
    return held if len(held) <= MANY else None
