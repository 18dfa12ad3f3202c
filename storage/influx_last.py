"""Last values in InfluxDB: read back when the store is opened, and kept when raw data goes.

Reading them is a question per field about all devices, seconds for some hundred of them, so it runs on a thread of its
own. Raw data is dropped by the server after `series.raw_days`, last values must not be: those that have half of that
time behind them are written once more, as `last_part`, beside the hours, where data is kept for years.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import structlog

from core.errors import StoreUnavailable
from core.kinds import KINDS, STATUS_FIELDS, all_fields
from storage import influx_lines as lines
from storage.influx_server import Series
from storage.last_values import LastValues, Part

ASK_AGAIN_S: Final = 5.0
"""A store that was away is asked for its last values this often."""

CLOSE_S: Final = 2.0
"""Closing waits no longer for an answer that is under way."""

SPOKE: Final = "event"
"""The part under which `seen` and `last_part` keep when a device last sent an event."""

Key = tuple[str, str]
"""Device id and part."""

_log = structlog.get_logger()


class Query(Protocol):
    """Asks one database some statements. Raises StoreUnavailable."""

    def __call__(self, database: str, *statements: str) -> list[list[Series]]: ...


class Loaded(NamedTuple):
    """What the database knows."""

    last: LastValues
    tips: dict[Key, tuple[int, int]]
    """Of each part: time and `rx` of its newest point that is a sign of life."""
    kept: dict[Key, tuple[int, str]]
    """Of each part: time and text of its newest `last_part`."""


class Loading:
    """Runs `load` once, on a thread of its own. A load that failed is begun again by who asks next, in time."""

    def __init__(self, load: Callable[[], None]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error = StoreUnavailable("last values are not read yet")
        self._failed_s: float | None = None
        self.done = False

    def begin(self) -> None:
        """Returns at once."""
        with self._lock:
            running = self._thread is not None and self._thread.is_alive()
            too_soon = self._failed_s is not None and time.monotonic() - self._failed_s < ASK_AGAIN_S
            if self.done or running or too_soon:
                return
            self._thread = threading.Thread(target=self._run, name="influx-last", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Returns when all is loaded. Raises StoreUnavailable when that failed."""
        self.begin()
        if self._thread is not None:
            self._thread.join()
        if not self.done:
            raise StoreUnavailable(str(self._error))

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            self._load()
        except StoreUnavailable as error:
            self._error, self._failed_s = error, time.monotonic()
        except Exception as error:  # noqa: BLE001 - what came is written all the same
            _log.exception("last values could not be read")
            self._error, self._failed_s = StoreUnavailable(f"last values: {error!r}"), time.monotonic()
        else:
            self.done = True


def load(query: Query, raw: str, hours: str) -> Loaded:
    """Reads all of it. `raw` and `hours` are databases. Raises StoreUnavailable."""
    parts: dict[Key, Part] = {}
    tips: dict[Key, tuple[int, int]] = {}
    for kind in KINDS:
        _load_kind(query, raw, kind, parts, tips)
    spoke: dict[str, int] = {}
    kept = _load_kept(query, hours, parts, spoke)
    _load_beside(query, raw, parts, spoke)
    return Loaded(LastValues(parts, spoke), tips, kept)


def columns(query: Query, raw: str, kind: str) -> list[str]:
    """The fields that raw points of a kind have."""
    (keys,) = query(raw, f'SHOW FIELD KEYS FROM "{kind}"')
    return [row[0] for one in keys for row in one.rows]


def mixed(names: Sequence[str]) -> set[str]:
    """Of `columns`, the fields outside the contract that were text or a bool somewhere."""
    return {lines.unsafe(name.removeprefix(lines.OTHER)) for name in names if name.startswith(lines.OTHER)}


def kept_lines(
    last: LastValues, before: int, kept: Mapping[Key, tuple[int, str]]
) -> Iterator[tuple[Key, int, str, str]]:
    """(key, time, text, line) of each part of which something older than `before` (Unix ms) is not kept as it is now.

    Only what is old is in it, and that changes seldom: a device that speaks costs nothing here.
    """
    parts, spoke = last.older(before)
    documents = {key: _document(part) for key, part in parts.items()}
    documents |= {(device_id, SPOKE): {"rx": rx} for device_id, rx in spoke.items()}
    for key, document in documents.items():
        text = json.dumps(document, ensure_ascii=False)
        held_ts, held_text = kept.get(key, (0, ""))
        if text != held_text:
            ts = max(held_ts + 1, before)  # the last one counts, also where `before` went back with a setting
            yield key, ts, text, f"{lines.head('last_part', *key)} part_json={lines.text(text)} {ts}"


def _document(part: Part) -> dict[str, Any]:
    fields = {name: [*held, part.status_rx.get(name)] for name, held in part.held().items()}
    return {"kind": part.kind, "ts": part.ts, "rx": part.rx, "fields": fields}


def _load_kept(query: Query, hours: str, parts: dict[Key, Part], spoke: dict[str, int]) -> dict[Key, tuple[int, str]]:
    """What was written down before it went; newer values that are in `parts` stay."""
    kept: dict[Key, tuple[int, str]] = {}
    (found,) = query(hours, _newest("part_json", "last_part"))
    for key, ts, text in _by_part(found):
        kept[key] = ts, text
        document = json.loads(text)
        if key[1] == SPOKE:
            spoke[key[0]] = document["rx"]
            continue
        part = parts.setdefault(key, Part(document["kind"]))
        part.ts = max(part.ts, document["ts"])
        part.rx = max(filter(None, (part.rx, document["rx"])), default=None)
        for name, (value, value_ts, status_rx) in document["fields"].items():
            if status_rx is not None:
                part.put_status(name, value, value_ts, status_rx)
            elif part.times.get(name, -1) < value_ts:
                part.put(name, value, value_ts)
    return kept


def _load_kind(query: Query, raw: str, kind: str, parts: dict[Key, Part], tips: dict[Key, tuple[int, int]]) -> None:
    """The newest value of every field, by part: one statement per field, because only so its time comes with it."""
    names = columns(query, raw, kind)
    found = dict(zip(names, query(raw, *(_newest(name, kind) for name in names)), strict=True))
    for column, rows in found.items():
        for key, ts, value in _by_part(rows):
            part = parts.setdefault(key, Part(kind))
            part.ts = max(part.ts, ts)
            if column == "rx":
                tips[key] = (ts, int(value))
                part.rx = int(value)
    known = all_fields(kind)
    for name in known.keys() - STATUS_FIELDS:
        for key, ts, value in _by_part(found.get(name, [])):
            parts[key].put(name, known[name].type(value), ts)
    _load_outside(found, parts)


def _load_outside(found: dict[str, list[Series]], parts: dict[Key, Part]) -> None:
    """Fields outside the contract: of a number and a text the newer one; at one instant the text, unless empty."""
    for prefix in (lines.NUMBER, lines.OTHER):
        for column, rows in found.items():
            if not column.startswith(prefix):
                continue
            name = lines.unsafe(column.removeprefix(prefix))
            for key, ts, raw in _by_part(rows):
                value = float(raw) if prefix == lines.NUMBER else lines.outside_value(None, raw)
                if value is not None:
                    parts[key].put(name, value, ts)


def _load_beside(query: Query, raw: str, parts: dict[Key, Part], spoke: dict[str, int]) -> None:
    """What points cannot tell: status by receive time, and the newest signs of life."""
    names = sorted(STATUS_FIELDS)
    statuses = [_newest(name, "status").replace(" FROM", f', "{name}_ts" FROM') for name in names]
    *by_name, seen = query(raw, *statuses, _newest("rx", "seen"))
    for name, found in zip(names, by_name, strict=True):
        for one in found:
            for rx, value, ts in one.rows:
                part = parts.get(lines.device_of(one.tags))
                if part is not None:
                    part.put_status(name, value, ts, rx)
    for (device_id, part_name), rx, _ in _by_part(seen):
        if part_name == SPOKE:
            spoke[device_id] = max(spoke.get(device_id, 0), rx)
        elif (device_id, part_name) in parts:
            held = parts[device_id, part_name]
            held.rx = max(held.rx or 0, rx)


def _newest(column: str, measurement: str) -> str:
    return f'SELECT last("{column}") FROM "{measurement}" GROUP BY device, part, site'  # noqa: S608 - columns are `safe`


def _by_part(found: Sequence[Series]) -> list[tuple[Key, int, Any]]:
    """(key, time, value) of each row of a `_newest` answer."""
    return [(lines.device_of(one.tags), row[0], row[1]) for one in found for row in one.rows]
