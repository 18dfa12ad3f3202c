"""The job that rolls up what is due and drops what is old, for any series store."""

from __future__ import annotations

import threading
from typing import Final

import structlog

from core.clock import Clock
from core.errors import StoreUnavailable
from core.settings import Series
from storage.series import HOUR_MS, Horizon, SeriesStore

EVERY_S: Final = 60.0
GRACE_MS: Final = 2 * 60_000
"""An hour is over for so long before it is rolled up: most of what is late has come by then."""

PAUSE_S: Final = 0.2
"""Between two hours: whoever waits for the store comes first."""

FAILURES: Final = 2
"""So many in a row mean that the store is away; one may be an hour that cannot be rolled up."""

_DAY_MS: Final = 24 * HOUR_MS
_log = structlog.get_logger()


class RollUpJob:
    """One per store; the store may be written to meanwhile."""

    def __init__(self, store: SeriesStore, keep: Series, now: Clock) -> None:
        self._store = store
        self._keep = keep
        self._now = now
        self._expired_at: int | None = None

    def run(self, stop: threading.Event) -> None:
        """Every minute, until `stop`."""
        while not stop.is_set():
            try:
                self.work(stop)
            except Exception:  # noqa: BLE001 - whatever it was: charts may be slow, but rescues go on
                _log.exception("roll-ups failed; they are tried again")
            stop.wait(EVERY_S)

    def work(self, stop: threading.Event) -> None:
        """Rolls up the hours that are due, oldest first; drops what is old once an hour."""
        began, failed = self._now(), 0
        for hour in self._store.unrolled():
            if hour + HOUR_MS + GRACE_MS > self._now() or stop.is_set():
                break
            try:
                self._store.roll_up(hour)
                failed = 0
            except StoreUnavailable as error:
                failed += 1
                _log.warning("an hour was not rolled up; it is tried again", hour=hour, error=str(error))
                if failed == FAILURES:
                    return
            stop.wait(PAUSE_S)
            self._expire_after(began if self._expired_at is None else self._expired_at)
        if not stop.is_set():
            self._expire_after(self._expired_at)

    def _expire_after(self, last: int | None) -> None:
        """Drops what is old if it was done an hour ago, or never. It need not wait for hours that are to be rolled."""
        now = self._now()
        if last is not None and now < last + HOUR_MS:
            return
        days = self._keep.raw_days, self._keep.minute_days, self._keep.hour_days
        try:
            self._store.expire(Horizon(*(now - one * _DAY_MS for one in days)))
            self._expired_at = now
        except StoreUnavailable as error:
            _log.warning("old measurements were not dropped; it is tried again", error=str(error))
