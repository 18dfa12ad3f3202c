"""Recognising messages that came before, and keeping the number of unknown field names in bounds."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from core.kinds import all_fields
from core.reading import Message

REMEMBERED: Final = 50_000
"""More than any broker has in flight to us; older repeats land on their own point in the store all the same."""

MAX_UNKNOWN_NAMES: Final = 1_000
"""Different unknown field names kept per device kind."""


class Repeats:
    """The last messages, by content."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, None] = OrderedDict()

    def is_repeat(self, topic: str, payload: bytes) -> bool:
        """Whether these bytes came before on this topic; from now on they did.

        Python keys the hash of bytes and text anew in every process, so nobody outside can make two messages collide.
        """
        key = hash((topic, payload))
        if key in self._seen:
            self._seen.move_to_end(key)
            return True
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return False


class UnknownFields:
    """Fields outside the contract: the first names of each kind are kept, later ones are counted and left out."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return sum(map(len, self._names.values()))

    def limit(self, message: Message) -> Message:
        """The message without unknown fields that are too many."""
        self.dropped += message.unknown_dropped
        if not message.unknown_fields:
            return message
        names = self._names.setdefault(message.kind, set())
        for name in sorted(message.unknown_fields - names):
            if len(names) == MAX_UNKNOWN_NAMES:
                break
            names.add(name)
        refused = message.unknown_fields - names
        if not refused:
            return message
        self.dropped += len(refused)
        known = all_fields(message.kind)
        readings = tuple(
            reading._replace(
                fields={name: value for name, value in reading.fields.items() if name in known or name not in refused}
            )
            for reading in message.readings
        )
        return message._replace(readings=readings)
