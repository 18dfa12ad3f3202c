"""Ticket changes as open pages follow them: one poller for all of them, and never a change missed or told twice.

A change is a line of ticket history; its id is the change number. Every stream keeps its own cursor and asks for what
came after it, so a slow stream only lags. The newest changes are in memory; older ones come from the records.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from core.errors import StoreUnavailable
from storage.tickets import News, Tickets

POLL_S: Final = 0.25
PAUSE_S: Final = 2.0
"""Between two tries while the records do not answer."""
KEPT: Final = 1_000

_log = structlog.get_logger(__name__)


class ChangeFeed:
    """Lives on the event loop; databases are read in threads."""

    def __init__(self, tickets: Tickets) -> None:
        self._tickets = tickets
        self._listeners: set[asyncio.Event] = set()
        self._poller: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._ring: deque[News] = deque()
        self._ring_after = 0
        """The ring holds every change after this number, up to `_newest`."""
        self._newest: int | None = None
        """None until the poller has looked once."""

    async def start_of(self, last_id: int | None) -> int:
        """The cursor of a new stream: where the client stopped, or now. A number of another database counts as now."""
        newest = await asyncio.to_thread(self._tickets.newest_change)
        return newest if last_id is None else min(last_id, newest)

    async def after(self, cursor: int) -> list[News]:
        """The changes after a cursor, oldest first; at most 500 of them, so ask again."""
        if self._poller is not None and self._newest is not None and cursor >= self._ring_after:
            return [news for news in self._ring if news.id > cursor]
        return await asyncio.to_thread(self._tickets.news_after, cursor)

    @contextmanager
    def listen(self, wake: asyncio.Event) -> Iterator[None]:
        """Sets `wake` at every change. The poller runs while somebody listens."""
        self._listeners.add(wake)
        if self._poller is None and not self._stop.is_set():
            self._poller = asyncio.create_task(self._poll(), name="ticket changes")
        try:
            yield
        finally:
            self._listeners.discard(wake)

    async def close(self) -> None:
        """Waits for the poller, so that no thread reads a database that is about to be closed."""
        self._stop.set()
        if self._poller is not None:
            await self._poller

    async def _poll(self) -> None:
        try:
            self._ring.clear()
            self._newest = None
            while self._listeners and not self._stop.is_set():
                await self._wait(POLL_S if await self._look() else PAUSE_S)
        finally:
            self._poller = None

    async def _look(self) -> bool:
        """One look at the records; False when they do not answer."""
        try:
            if self._newest is None:
                self._ring_after = self._newest = await asyncio.to_thread(self._tickets.newest_change)
            else:
                found = await asyncio.to_thread(self._tickets.news_after, self._newest)
                if not found:
                    return True
                self._keep(found)
        except StoreUnavailable as error:
            _log.warning("live pages wait for the records", error=str(error))
            return False
        # After the first look too: a listener may have asked just before it, and the ring begins just after it.
        for wake in self._listeners:
            wake.set()
        return True

    def _keep(self, found: list[News]) -> None:
        self._ring.extend(found)
        self._newest = found[-1].id
        excess = max(0, len(self._ring) - KEPT)
        for old in list(itertools.islice(self._ring, excess)):
            self._ring_after = old.id
            self._ring.popleft()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return
