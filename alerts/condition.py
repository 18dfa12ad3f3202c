"""What a compiled condition is, what it sees when it is judged, and which samples it asks the engine to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import Final, NamedTuple, Protocol

from alerts.windows import Track
from core.reading import Value

NEVER_MS: Final = 2**62


class Param(NamedTuple):
    """A parameter of a rule: a name that stands for a constant. The value is in the unit already; times in "s"."""

    value: float | str | bool
    unit: str = ""
    """"" fits any unit, like a bare number."""


class Scope(Protocol):
    """What a condition can see when it is evaluated."""

    @property
    def now(self) -> int:
        """The instant that is judged: device time, Unix ms."""

    @property
    def zone(self) -> tzinfo:
        """Of the site."""

    def field(self, name: str) -> Value | None:
        """The value of a field; None when unknown, that is never seen or stale."""

    def updated(self, name: str) -> int | None:
        """Device time of the newest value, Unix ms, even of a stale one; None when never seen."""

    def static(self, name: str) -> Value | None:
        """A fixed fact of the device (`device.floors`); None when nobody recorded it."""

    def active(self, fault: str) -> bool:
        """Whether the device has raised this fault and not cleared it."""

    def heard(self) -> int | None:
        """Device time at which the device last said anything, Unix ms; None when it never did."""

    def track(self, key: str) -> Track | None:
        """The samples of a series; None when they are not known yet, as just after a start."""

    def siblings(self, name: str) -> Sequence[Value]:
        """Known values of that field on the other ports of the pile."""


Evaluate = Callable[[Scope], bool | None]
Wakes = Callable[[Scope], int | None]


class Series(NamedTuple):
    """A run of samples that a window function looks at. Same key = same samples, shared by all rules of a part."""

    key: str
    """Canonical text: the field or the counted condition, and the resolution."""
    field: str | None
    """The field whose samples are kept; None for a counted condition."""
    counted: Condition | None
    """`count(condition, window)`: a plain condition. The engine adds 1 at the instant at which it became true."""
    keep_ms: int
    """How far back it must reach. Users of one key take the longest."""
    step_ms: int
    """0: every sample is kept; else buckets of so many ms."""


class Condition(NamedTuple):
    """A compiled expression. `evaluate` never raises; None means unknown."""

    text: str
    fields: frozenset[str]
    """Every field that is named, also inside windows and sibling functions."""
    faults: frozenset[str]
    evaluate: Evaluate
    series: tuple[Series, ...] = ()
    siblings: frozenset[str] = frozenset()
    """Fields that are looked at on other ports."""
    wakes: Wakes | None = None
    """None: only a new value can change the verdict. Else: the next instant after `scope.now` at which it may change
    by time alone (a value going stale turns a verdict into unknown; that alone is no reason to wake), or None."""
    plain: bool = True
    """The verdict is a function of the values of fields and faults and of recorded facts: no time, no window, no
    neighbour, and no question whether a value is known."""
    soonest_ms: int = NEVER_MS
    """So long after a report of its fields, at the earliest, the verdict can change by time alone."""
    guard: Evaluate | None = None
    """Its plain parts, where all of them must be true: while they are false, time alone cannot make it true."""
    fades: bool = False
    """A report of a known, unchanged value can only make it less true: its age begins anew, and nothing else in it
    looks at reports."""
    cost: int = 0
    """Number of parts, windows counting for more."""
