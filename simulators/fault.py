"""A fault that can be laid over a virtual device: what changes in it, what it says, and who should tell of it.

`begin` and `end` change the device itself (a car stops, a plug is pulled), the overlay changes what its snapshots say,
cues are the events it sends. All are pure; times are seconds since the fault began, on the clock of the stamps,
because rules wait on that clock too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

Overlay = Callable[[Any, float, int], Any]
"""(snapshot, seconds since the fault began, port or 0) -> the snapshot that is sent. `Any`: kinds differ by entry."""
Hook = Callable[[Any, int, random.Random], Any]
"""(state, port or 0, rng) -> state."""

LIFT, PILE = ("elevator",), ("charger",)


class Cue(NamedTuple):
    """An event sent exactly once: raised `at_s` after the beginning, cleared when the fault ends."""

    at_s: float
    table: str
    code: str


def same(snapshot: Any, elapsed_s: float, port: int) -> Any:
    """An overlay that changes nothing."""
    return snapshot


def keep(state: Any, port: int, rng: random.Random) -> Any:
    """A hook that changes nothing."""
    return state


class SimulatedFault(NamedTuple):
    """One entry of the registry."""

    name: str
    kinds: tuple[str, ...]
    en: str
    """What happens, for help texts."""
    truth: str | None
    """The fault of `core.faults.FAULTS` that really is there; None: nothing of the catalogue (a trend, silence)."""
    overlay: Overlay = same
    cues: tuple[Cue, ...] = ()
    begin: Hook = keep
    end: Hook = keep
    lasts_s: float | None = None
    """Default duration; None: to the end of the run."""
    on_port: bool = False
    """Sits on one port; without one given, the plan picks one."""
    silent: bool = False
    offline: bool = False
    """The broker publishes the device's last will."""
    group: str = ""
    """Fault group of the default rules that must tell of it."""
    told_s: float = 0.0
    """So long after it began at the latest: the rule's own time, the time until it shows, and that until it is
    reported."""
    also: tuple[str, ...] = ()
    """Groups that rightly tell of it as well."""


def changed(**values: Any) -> Overlay:
    """An overlay that sets fields of the device itself."""
    return lambda snapshot, elapsed_s, port: snapshot.model_copy(update=values)
