"""What a virtual device is to the fleet: a preset's entry, and one driver per kind.

A new kind of device is one file with a `DRIVER` and one line in `simulators.fleet.DRIVERS`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from core.fields import Wire
from simulators.daytime import Pace

WHOLE = 0
"""Part number of the device itself; ports count from 1."""

State = TypeVar("State")


class Device(NamedTuple):
    """A device of a preset, as it would stand in the records."""

    site: str
    kind: str
    id: str
    """Unique within its site: `lift-01`."""
    zh: str
    en: str
    building: str | None
    stair: str | None
    contractor: str
    statics: Mapping[str, str | int | float]
    """Lifts: `model`, `floors`, `rated_speed_mps`, `rated_load_kg`; piles: `model`, `ports`."""

    @property
    def device_id(self) -> str:
        """The key of a device behind the wire: `fenghe.lift-01`."""
        return f"{self.site}.{self.id}"


class Watch(NamedTuple):
    """Report by exception: a part is due when its key changed, or `every_s` simulated seconds after its last report.

    When the part is WHOLE, everything is reported.
    """

    part: int
    key: str
    every_s: float
    watcher: int = 0
    """Who watches: 0 the device itself, 1.. a fault laid over it. Each remembers its own key of a part."""


@dataclass(frozen=True, slots=True)
class Driver(Generic[State]):
    """How the fleet moves one kind of device. All functions are pure but for drawing from the given rng."""

    firmware: str
    start: Callable[[Device, Pace, float, random.Random], State]
    """(device, pace, clock in simulated Unix seconds, rng) -> state."""
    step: Callable[[State, float, random.Random], State]
    """(state, simulated seconds, rng) -> state."""
    watches: Callable[[State], Sequence[Watch]]
    snapshot: Callable[[State, int, int, Collection[int]], Wire]
    """(state, ts in Unix ms, seq, parts) -> telemetry; parts that hold WHOLE mean everything."""
