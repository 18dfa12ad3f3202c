"""After a start: reads the samples that windows of rules look at back from the series store.

Short windows are read before anything is judged, so that a restart changes nothing; but alarms wait for the database of
measurements for some seconds at most. The rest goes on beside the work, with the lock of the engine's owner.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

import structlog

from alerts.engine import Engine
from core.clock import MAX_AHEAD_MS
from core.errors import StoreUnavailable
from storage.history import History, Item
from storage.series import SeriesStore

PATIENCE_S: Final = 5.0
"""Nothing is judged for so long after a start at most."""

ASK_AGAIN_S: Final = 5.0
"""A series store that is away is asked again this often."""

AT_ONCE: Final = 200
"""Readings that are taken while alarms wait."""

_log = structlog.get_logger()


class Store(SeriesStore, History, Protocol):
    """A series store with all that it remembers."""


class ReadBack:
    """`begin` before anything is judged, then `run` in a thread of its own."""

    def __init__(self, engine: Engine, store: Store, lock: AbstractContextManager[object], *, now: int) -> None:
        """The engine knows its devices and their last values by now. `lock` is held by whoever uses it."""
        self._engine = engine
        self._store = store
        self._lock = lock
        self._rehearsal = engine.rehearsal()
        self._until = engine.newest_ts(at_most=now)
        """Device time of the newest thing that was stored, Unix ms: windows end there."""
        self._rest: Iterator[Item] | None = None
        self._read = 0

    def begin(self, *, patience_s: float = PATIENCE_S) -> None:
        """Short windows, or as much of them as can be read in that time; then they count as known."""
        ends_at = time.monotonic() + patience_s
        try:
            self._rest = self._short()
            while time.monotonic() < ends_at and self._some():
                pass
        except StoreUnavailable as error:
            self._rest = None
            _log.warning("windows of rules begin anew until the series store answers", error=str(error))
        self._rehearsal.short_windows_are_known()

    def run(self, stop: threading.Event) -> None:
        """The rest of the short windows, and the long ones. A series store that is away is asked again."""
        began = time.monotonic()
        while not stop.is_set():
            try:
                if self._rest is None:
                    self._rest = self._short()
                while not stop.is_set() and self._some():
                    pass
                self._long(stop)
            except StoreUnavailable as error:
                self._rest = None
                _log.warning("samples for windows of rules cannot be read back yet", error=str(error))
                stop.wait(ASK_AGAIN_S)
                continue
            with self._lock:
                self._rehearsal.end()
                self._engine.plan_all()
            if self._read:
                took_s = round(time.monotonic() - began, 1)
                _log.info("samples for the windows of rules read back", read=self._read, seconds=took_s)
            return

    def _short(self) -> Iterator[Item]:
        with self._lock:
            self._rehearsal.begin()
            reach_ms, fields = self._engine.window_ms, self._engine.window_fields
        if not reach_ms:
            return iter(())
        return self._store.history(self._until - reach_ms, self._until + MAX_AHEAD_MS, fields=fields)

    def _some(self) -> bool:
        """Takes some more; False: that was all."""
        assert self._rest is not None
        some = list(itertools.islice(self._rest, AT_ONCE))
        with self._lock:
            self._rehearsal.take(some)
        self._read += len(some)
        return bool(some)

    def _long(self, stop: threading.Event) -> None:
        for wanted in self._rehearsal.long_windows(self._until + 1):
            if stop.is_set():
                return
            kind, device_id, part, field, start, end, series = wanted
            found = self._store.window(kind, device_id, part, field, start=start, end=end, step=series.step_ms)
            with self._lock:
                self._rehearsal.put(wanted, found)
            self._read += len(found)
