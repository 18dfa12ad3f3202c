"""`/api/v1/live`: what changes, as server-sent events.

| event | id | data |
|---|---|---|
| `hello` | change number | `{"last_id"}`: from here on nothing is missed |
| `ticket` | change number | `{"id", "ticket", "action", "state", "severity", "site", "device", "part", "title", ...}` |
| `values` | none | `{"device", "parts": {part: {field: {"value", "ts"}}}}`: the newest since the last one |

After a reconnect the browser sends Last-Event-ID, and the stream goes on with the very next change. Values are only
news: those of a slow client are merged (newest wins), never queued; changes are read from the records at its own pace.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from api.errors import problem
from api.feed import ChangeFeed
from api.services import Services
from api.watch import Watch
from core.errors import StoreUnavailable
from core.reading import Message
from core.topics import ID_PATTERN
from storage.tickets import News

router = APIRouter(tags=["live"])

HEARTBEAT_S: Final = 15.0
PACE_S: Final = 0.1
"""At most ten bursts a second to one page."""
MAX_DEVICES: Final = 300
MAX_STREAMS: Final = 500
MAX_FIELDS: Final = 200
"""Of one part, waiting for a slow client: a device may invent names without end."""
RETRY_MS: Final = 1_000

_ONE_ID: Final = ID_PATTERN.strip("^$")
_DEVICE_ID = re.compile(rf"{_ONE_ID}\.{_ONE_ID}")


class Viewer:
    """One open stream: what it shows, and which values it has not been sent yet."""

    def __init__(self, device_ids: frozenset[str]) -> None:
        self.device_ids = device_ids
        self.wake = asyncio.Event()
        self._pending: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}

    def offer(self, message: Message) -> None:
        """Keeps the newest value of every field until it is taken. Bounded: fields of the devices shown."""
        parts = self._pending.setdefault(message.device_id, {})
        for reading in message.readings:
            fields = parts.setdefault(reading.part, {})
            for name, value in reading.fields.items():
                held = fields.get(name)
                if held is None and len(fields) >= MAX_FIELDS:
                    continue
                if held is None or held["ts"] <= reading.ts:
                    fields[name] = {"value": value, "ts": reading.ts}
        self.wake.set()

    def take(self) -> Mapping[str, Any]:
        """What has gathered, by device id."""
        taken, self._pending = self._pending, {}
        return taken


class Live:
    """Everything live of one app: the change feed, the watched devices and the open streams."""

    def __init__(self, services: Services) -> None:
        self.feed = ChangeFeed(services.tickets)
        self.stopping = False
        self._watch = Watch(services.settings.mqtt, services.now, self._deliver)
        self._viewers: set[Viewer] = set()
        self._by_device: dict[str, set[Viewer]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def connected(self) -> bool:
        return self._watch.connected

    @property
    def full(self) -> bool:
        return len(self._viewers) >= MAX_STREAMS

    def open(self) -> None:
        """Call on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._watch.open()

    async def close(self) -> None:
        """After the last stream has ended."""
        self._stop()
        await self.feed.close()
        await self._watch.close()

    def stop_streams(self) -> None:
        """Ends all open streams within a moment; new ones end at once. May be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop)

    @contextmanager
    def viewer(self, device_ids: frozenset[str]) -> Iterator[Viewer]:
        """A stream for as long as it is open."""
        viewer = Viewer(device_ids)
        self._viewers.add(viewer)
        for device_id in device_ids:
            self._by_device.setdefault(device_id, set()).add(viewer)
        self._watch.show(device_ids)
        try:
            with self.feed.listen(viewer.wake):
                yield viewer
        finally:
            self._viewers.discard(viewer)
            for device_id in device_ids:
                self._by_device[device_id].discard(viewer)
                if not self._by_device[device_id]:
                    del self._by_device[device_id]
            self._watch.hide(device_ids)

    def _deliver(self, message: Message) -> None:
        for viewer in self._by_device.get(message.device_id, ()):
            viewer.offer(message)

    def _stop(self) -> None:
        self.stopping = True
        for viewer in self._viewers:
            viewer.wake.set()


@router.get(
    "/live",
    summary="Ticket changes and live values (server-sent events)",
    # Not EventSourceResponse: with that FastAPI would run the generator itself, through a queue of its own.
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}, "description": "The events of this module's table."}},
)
async def live(
    request: Request,
    *,
    device: Annotated[
        str, Query(max_length=40_000, description="device ids with commas between: whose values to send", examples=[""])
    ] = "",
    last_id: Annotated[int | None, Query(ge=0, le=2**53, description="the last change that is known already")] = None,
    last_event_id: Annotated[str | None, Header(description="sent by browsers; goes before `last_id`")] = None,
) -> Response:
    """Events `hello`, `ticket` and `values`; a comment every 15 s keeps proxies from closing the connection."""
    device_ids = frozenset(filter(None, device.split(",")))
    _check(device_ids)
    hub: Live = request.app.state.live
    if hub.full:
        return problem(503, "too_many_streams", f"{MAX_STREAMS} pages are open already")
    if last_event_id is not None and re.fullmatch(r"[0-9]{1,15}", last_event_id):
        last_id = int(last_event_id)
    cursor = await hub.feed.start_of(last_id)
    headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
    return EventSourceResponse(_stream(hub, device_ids, cursor), headers=headers)


async def _stream(hub: Live, device_ids: frozenset[str], cursor: int) -> AsyncIterator[bytes]:
    with hub.viewer(device_ids) as viewer:
        yield _event("hello", {"last_id": cursor}, cursor, retry=RETRY_MS)
        while not hub.stopping:
            viewer.wake.clear()
            try:
                news = await hub.feed.after(cursor)
            except StoreUnavailable:
                news = []  # the stream stays, and asks again at the next change or heartbeat
            for one in news:
                cursor = one.id
                yield _event("ticket", _change(one), cursor)
            for device_id, parts in viewer.take().items():
                yield _event("values", {"device": device_id, "parts": parts})
            if news:
                continue  # there may be more than one answer holds
            if await _woken(viewer.wake):
                await asyncio.sleep(PACE_S)
            else:
                yield KEEPALIVE_COMMENT


async def _woken(wake: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            return await wake.wait()
    except TimeoutError:
        return False


def _event(event: str, data: Mapping[str, Any], change: int | None = None, retry: int | None = None) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return format_sse_event(event=event, data_str=text, id=None if change is None else str(change), retry=retry)


def _change(news: News) -> dict[str, Any]:
    return {
        "id": news.id,
        "ticket": news.ticket_id,
        "action": news.action,
        "state": news.state,
        "severity": news.severity,
        "site": news.site_id,
        "device": news.device_id,
        "part": news.part,
        "title": {"zh": news.title_zh, "en": news.title_en},
        "at": news.at,
    }


def _check(device_ids: frozenset[str]) -> None:
    """Ids become topic filters: nothing but whole ids may pass."""
    wrong = [one for one in device_ids if not _DEVICE_ID.fullmatch(one)]
    reason = f"not a device id: {min(wrong)!r:.100}" if wrong else ""
    if len(device_ids) > MAX_DEVICES:
        reason = f"at most {MAX_DEVICES} devices at once"
    if reason:
        raise RequestValidationError([{"loc": ("query", "device"), "msg": reason, "type": "value_error"}])
