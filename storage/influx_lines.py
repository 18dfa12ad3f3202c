"""Readings and events as InfluxDB line protocol. Pure: text in, text out.

The schema (docs/influxdb.md): a measurement per device kind with the tags site, device and part ("-" is the device
itself); fields of the contract under their own names and types, with `rx` and `seq`. A field outside the contract is
`x_NAME` while it is a number; other values are JSON text in `xs_NAME`, because InfluxDB gives a field one type for
good. Where both stand at one point, a non-empty `xs_NAME` is the value.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache, lru_cache
from typing import Final
from urllib.parse import quote, unquote

from core.kinds import STATUS_FIELDS, all_fields
from core.reading import Event, Reading, Value

ITSELF: Final = "-"
"""The tag `part` of the device itself: InfluxDB has no empty tags."""

NO_FAULT: Final = "-"
"""The tag `fault` of an event whose code no table knows."""

NUMBER: Final = "x_"
OTHER: Final = "xs_"

_ESCAPED: Final = str.maketrans({"\\": "\\\\", '"': '\\"'})
_ODD: Final = re.compile(r"[^\w.-]")  # \w: letters and digits of all scripts
_SLOTS: Final = 500_000
"""Events of one part in one millisecond are kept apart by the nanoseconds, two per slot: raised and cleared."""


@lru_cache(16_384)
def safe(name: str) -> str:
    """A name without any character that line protocol or InfluxQL could misread; `unsafe` is the way back."""
    return _ODD.sub(lambda odd: quote(odd[0], safe=""), name)


def unsafe(name: str) -> str:
    """The name that `safe` was given."""
    return unquote(name)


@lru_cache(131_072)
def head(measurement: str, device_id: str, part: str) -> str:
    """Measurement and tags."""
    site, device = _tags(device_id)
    return f"{measurement},device={device},part={safe(part) or ITSELF},site={site}"


def _tags(device_id: str) -> tuple[str, str]:
    site, _, device = device_id.partition(".")
    return safe(site) or ITSELF, safe(device) or ITSELF


def where(device_id: str, part: str | None = None) -> str:
    """The condition that finds a device, or one part of it. Every character in it is harmless."""
    site, device = _tags(device_id)
    of_part = "" if part is None else f" AND part = '{safe(part) or ITSELF}'"
    return f"device = '{device}' AND site = '{site}'{of_part}"


def span(start: int, end: int) -> str:
    """The condition for a time from `start` (inclusive) to `end` (exclusive), Unix ms."""
    return f"time >= {start}ms AND time < {end}ms"


def device_of(tags: Mapping[str, str]) -> tuple[str, str]:
    """(device id, part) of a row's tags."""
    part = unsafe(tags["part"])
    return f"{unsafe(tags['site'])}.{unsafe(tags['device'])}", "" if part == ITSELF else part


def reading_line(one: Reading, *, alive: bool, mixed: Collection[str]) -> str:
    """One point, in milliseconds. `mixed`: names outside the contract that were text somewhere in this kind."""
    known = _writers(one.kind)
    words = []
    for name, value in one.fields.items():
        writer = known.get(name)
        words.append(writer(value) if writer else _outside(name, value, name in mixed))
    words.append(f"rx={one.rx}i" if alive else f"rx_quiet={one.rx}i")
    if one.seq is not None:
        words.append(f"seq={one.seq}i")
    if not one.clock_ok:
        words.append("clock_ok=f")
    return f"{head(one.kind, one.device_id, one.part)} {','.join(words)} {one.ts}"


def status_line(reading: Reading) -> str:
    """What a device said of itself, by receive time: the newest is the one that was received last."""
    known = _writers(reading.kind)
    words = [
        f"{known[name](value)},{name}_ts={reading.ts}i"
        for name, value in reading.fields.items()
        if name in STATUS_FIELDS
    ]
    return f"{head('status', reading.device_id, reading.part)} {','.join(words)} {reading.rx}"


def seen_line(device_id: str, part: str, rx: int) -> str:
    """A sign of life whose receive time the newest point of the part does not show."""
    return f"{head('seen', device_id, part)} rx={rx}i {rx}"


def event_line(event: Event, came: int) -> str:
    """One event, in nanoseconds. `came` orders events of one instant."""
    words = [
        f"id={text(event.id)},kind={text(event.kind)},table={text(event.table)},code={text(event.code)}",
        f"raised={'t' if event.raised else 'f'},rx={event.rx}i,came={came}i",
    ]
    if event.seq is not None:
        words.append(f"seq={event.seq}i")
    if not event.clock_ok:
        words.append("clock_ok=f")
    if event.retained:
        words.append("retained=t")
    site, device = _tags(event.device_id)
    tags = f"device={device},fault={safe(event.fault or '') or NO_FAULT},part={event.part or ITSELF},site={site}"
    identity = f"{event.table}\0{event.code}\0{event.id}".encode()
    slot = int.from_bytes(hashlib.blake2b(identity, digest_size=8).digest()) % _SLOTS  # the same in every process
    return f"event,{tags} {','.join(words)} {event.ts * 1_000_000 + slot * 2 + event.raised}"


def event_of(row: Mapping[str, object], tags: Mapping[str, str], ts: int) -> Event:
    """The way back. `row`: columns by name; missing ones are None."""
    device_id, part = device_of(tags)
    fault = tags["fault"]
    return Event(
        device_id,
        str(row["kind"]),
        part,
        ts,
        int(str(row["rx"])),
        None if row.get("seq") is None else int(str(row["seq"])),
        str(row["id"]),
        str(row["table"]),
        str(row["code"]),
        None if fault == NO_FAULT else unsafe(fault),
        bool(row["raised"]),
        row.get("clock_ok") is not False,
        row.get("retained") is True,
    )


def text(value: str) -> str:
    """A string field value."""
    return f'"{value.translate(_ESCAPED)}"'


def outside_value(number: float | None, other: str | None) -> Value | None:
    """The value of a field outside the contract from its two columns."""
    if other:
        value: Value = json.loads(other)
        return value
    return number


@cache
def _writers(kind: str) -> dict[str, Callable[[Value], str]]:
    return {name: _WRITERS[spec.type](name) for name, spec in all_fields(kind).items()}


_WRITERS: Final[Mapping[type, Callable[[str], Callable[[Value], str]]]] = {
    bool: lambda name: lambda value: f"{name}={'t' if value else 'f'}",
    int: lambda name: lambda value: f"{name}={value}i",
    float: lambda name: lambda value: f"{name}={value!r}",
    str: lambda name: lambda value: f'{name}="{str(value).translate(_ESCAPED)}"',
}


def _outside(name: str, value: Value, mixed: bool) -> str:
    column = safe(name)
    if isinstance(value, bool | str):
        return f"{OTHER}{column}={text(json.dumps(value, ensure_ascii=False))}"
    number = f"{NUMBER}{column}={float(value)!r}"
    return f'{number},{OTHER}{column}=""' if mixed else number


def others(readings: Iterable[Reading]) -> set[tuple[str, str]]:
    """(kind, name) of values outside the contract that are no numbers."""
    return {
        (one.kind, name)
        for one in readings
        for name, value in one.fields.items()
        if isinstance(value, bool | str) and name not in _writers(one.kind)
    }
