"""The newest value of every field of every part, in memory. Drivers differ in how they load it.

Beside it, the newest events that are not in the database yet. The owner of either holds the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from core.kinds import STATUS_FIELDS
from core.reading import Event, Reading, Value
from storage.series import LastValue, PartValues

TIED: Final = 16
"""Events of one fault at one instant that are held, whatever a device sends."""


@dataclass(slots=True)
class Part:
    """What is known of one part. Values and their times lie apart, so that a snapshot is taken in by two updates."""

    kind: str
    ts: int = 0
    rx: int | None = None
    values: dict[str, Value] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    """Device time of each value. Of fields that are no status, none is newer than `ts`."""
    status_rx: dict[str, int] = field(default_factory=dict)
    """Receive time of the values of status fields, which decides between them."""

    def put(self, name: str, value: Value, ts: int) -> None:
        """Takes a value if it is not older than the one that is held."""
        if self.times.get(name, ts) <= ts:
            self.values[name], self.times[name] = value, ts

    def put_status(self, name: str, value: Value, ts: int, rx: int) -> None:
        """Takes a status if it was not received before the one that is held."""
        if self.status_rx.get(name, 0) <= rx:
            self.values[name], self.times[name], self.status_rx[name] = value, ts, rx

    def held(self) -> dict[str, LastValue]:
        """All values with their times."""
        times = map(self.times.__getitem__, self.values)
        return dict(zip(self.values, map(LastValue._make, zip(self.values.values(), times, strict=True)), strict=True))


class LastValues:
    """Of all parts of all devices."""

    def __init__(self, parts: dict[tuple[str, str], Part], spoke: dict[str, int]) -> None:
        """`parts` by (device id, part); `spoke`: newest receive time of an event, by device id."""
        self._parts = parts
        self._spoke = spoke

    def take(self, readings: Iterable[Reading]) -> None:
        for reading in readings:
            key = (reading.device_id, reading.part)
            part = self._parts.get(key)
            if part is None:
                part = self._parts[key] = Part(reading.kind)
            fields, ts = reading.fields, reading.ts
            if reading.sign_of_life and (part.rx is None or part.rx < reading.rx):
                part.rx = reading.rx
            if ts >= part.ts and fields.keys().isdisjoint(STATUS_FIELDS):
                part.ts = ts
                part.values.update(fields)
                part.times.update(dict.fromkeys(fields, ts))
            else:
                _take_slowly(part, reading)

    def take_events(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.sign_of_life:
                self._spoke[event.device_id] = max(self._spoke.get(event.device_id, 0), event.rx)

    def of(self, device_ids: Sequence[str] | None) -> dict[tuple[str, str], PartValues]:
        wanted = None if device_ids is None else set(device_ids)
        return {
            key: PartValues(part.kind, part.ts, part.rx, part.held())
            for key, part in self._parts.items()
            if wanted is None or key[0] in wanted
        }

    def seen(self) -> dict[str, int]:
        seen = dict(self._spoke)
        for (device_id, _), part in self._parts.items():
            if part.rx is not None:
                seen[device_id] = max(seen.get(device_id, 0), part.rx)
        return seen

    def rx(self, key: tuple[str, str]) -> int | None:
        """Newest receive time of a sign of life of one part."""
        part = self._parts.get(key)
        return part.rx if part else None

    def older(self, before: int) -> tuple[dict[tuple[str, str], Part], dict[str, int]]:
        """Of each part only what was measured (of a status: received) before `before`, parts without any left out; and
        by device id when a device last sent an event, where that is older."""
        found = {}
        for key, part in self._parts.items():
            old = Part(part.kind, part.ts, part.rx if part.rx is not None and part.rx < before else None)
            for name, value in part.values.items():
                if part.status_rx.get(name, part.times[name]) < before:
                    old.values[name], old.times[name] = value, part.times[name]
                    if name in part.status_rx:
                        old.status_rx[name] = part.status_rx[name]
            if old.values or old.rx is not None:
                old.ts = max(old.times.values(), default=0) if part.ts >= before else part.ts
                found[key] = old
        return found, {device_id: rx for device_id, rx in self._spoke.items() if rx < before}

    def joined(self, newer: LastValues) -> LastValues:
        """What a database gave back, joined with what was heard since: the newer value of a field counts."""
        for key, heard in newer._parts.items():
            part = self._parts.setdefault(key, Part(heard.kind))
            part.ts = max(part.ts, heard.ts)
            part.rx = max(filter(None, (part.rx, heard.rx)), default=None)
            for name, value in heard.values.items():
                if name in STATUS_FIELDS:
                    part.put_status(name, value, heard.times[name], heard.status_rx[name])
                else:
                    part.put(name, value, heard.times[name])
        for device_id, rx in newer._spoke.items():
            self._spoke[device_id] = max(self._spoke.get(device_id, 0), rx)
        return self


class HeardEvents:
    """Events that are durable elsewhere and will be written later: of each (device, part, fault) those of the newest
    instant, in the order in which they came."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str, str | None], list[Event]] = {}

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.fault is None:
                continue
            held = self._held.setdefault(_fault_of(event), [])
            if held and held[0].ts < event.ts:
                held.clear()
            # The first telling of an event counts.
            if not held or (held[0].ts == event.ts and identity(event) not in map(identity, held)):
                held.append(event)
                del held[:-TIED]

    def written(self, events: Iterable[Event]) -> None:
        """They are in the database now."""
        for event in events if self._held else ():
            held = self._held.get(_fault_of(event), [])
            left = [one for one in held if identity(one) != identity(event)]
            if left:
                self._held[_fault_of(event)] = left
            elif held:
                del self._held[_fault_of(event)]

    def copy(self) -> HeardEvents:
        copied = HeardEvents()
        copied._held = {key: list(held) for key, held in self._held.items()}
        return copied

    def joined(self, found: Iterable[Event], stored: Callable[[Event], bool]) -> list[Event]:
        """The newest of each fault, of what the database found and what is held. At one instant what is held is later,
        unless it is `stored` already and so has its place in the database's order."""
        newest = {_fault_of(event): event for event in found}
        for key, held in self._held.items():
            there = newest.get(key)
            if there is not None and there.ts == held[0].ts:
                held = [event for event in held if not stored(event)]  # noqa: PLW2901 - the rest of them
            if held and (there is None or there.ts <= held[0].ts):
                newest[key] = held[-1]
        return list(newest.values())


def identity(event: Event) -> tuple[str, str, str, int, bool]:
    """Two events of which this is the same are one."""
    return event.device_id, event.part, event.id, event.ts, event.raised


def _fault_of(event: Event) -> tuple[str, str, str | None]:
    return event.device_id, event.part, event.fault


def _take_slowly(part: Part, reading: Reading) -> None:
    """A sample that came late, or one with a status in it."""
    part.ts = max(part.ts, reading.ts)
    for name, value in reading.fields.items():
        if name in STATUS_FIELDS:
            part.put_status(name, value, reading.ts, reading.rx)
        else:
            part.put(name, value, reading.ts)
