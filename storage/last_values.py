"""The newest value of every field of every part, in memory. Drivers differ in how they load it.

The owner of a `LastValues` holds the lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from core.kinds import STATUS_FIELDS
from core.reading import Event, Reading, Value
from storage.series import LastValue, PartValues


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


def _take_slowly(part: Part, reading: Reading) -> None:
    """A sample that came late, or one with a status in it."""
    part.ts = max(part.ts, reading.ts)
    for name, value in reading.fields.items():
        if name in STATUS_FIELDS:
            part.put_status(name, value, reading.ts, reading.rx)
        else:
            part.put(name, value, reading.ts)
