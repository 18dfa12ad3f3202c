"""The newest value of every field of every part, in memory. Drivers differ in how they load it.

The owner of a `LastValues` holds the lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from core.kinds import STATUS_FIELDS
from core.reading import Event, Reading
from storage.series import LastValue, PartValues


@dataclass(slots=True)
class Part:
    """What is known of one part."""

    kind: str
    ts: int = 0
    rx: int | None = None
    values: dict[str, LastValue] = field(default_factory=dict)
    status_rx: dict[str, int] = field(default_factory=dict)
    """Receive time of the values of status fields, which decides between them."""


class LastValues:
    """Of all parts of all devices."""

    def __init__(self, parts: dict[tuple[str, str], Part], spoke: dict[str, int]) -> None:
        """`parts` by (device id, part); `spoke`: newest receive time of an event, by device id."""
        self._parts = parts
        self._spoke = spoke

    def take(self, readings: Iterable[Reading]) -> None:
        for reading in readings:
            part = self._parts.setdefault((reading.device_id, reading.part), Part(reading.kind))
            part.ts = max(part.ts, reading.ts)
            if reading.sign_of_life:
                part.rx = max(part.rx or 0, reading.rx)
            for name, value in reading.fields.items():
                held = part.values.get(name)
                if name in STATUS_FIELDS:
                    if part.status_rx.get(name, 0) <= reading.rx:
                        part.status_rx[name] = reading.rx
                        part.values[name] = LastValue(value, reading.ts)
                elif held is None or held.ts <= reading.ts:
                    part.values[name] = LastValue(value, reading.ts)

    def take_events(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.sign_of_life:
                self._spoke[event.device_id] = max(self._spoke.get(event.device_id, 0), event.rx)

    def of(self, device_ids: Sequence[str] | None) -> dict[tuple[str, str], PartValues]:
        wanted = None if device_ids is None else set(device_ids)
        return {
            key: PartValues(part.kind, part.ts, part.rx, dict(part.values))
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
                held = part.values.get(name)
                if name in STATUS_FIELDS:
                    if part.status_rx.get(name, 0) <= heard.status_rx[name]:
                        part.status_rx[name], part.values[name] = heard.status_rx[name], value
                elif held is None or held.ts <= value.ts:
                    part.values[name] = value
        for device_id, rx in newer._spoke.items():
            self._spoke[device_id] = max(self._spoke.get(device_id, 0), rx)
        return self
