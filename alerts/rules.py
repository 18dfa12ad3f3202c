"""What a rule is, ready to run: the records that the engine works with.

What a file may say stands in `alerts/rulekeys.py`, how that becomes a rule in `alerts/rulemaker.py`, and the book of
all rules in `alerts/rulebook.py`.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from alerts.condition import Condition
from alerts.schedule import Schedule
from core.incident import Finding

DEADLINE_MS: Final = 15 * 60_000
"""Data that reaches us later than this after the fact opens its incident marked late, and pages nobody."""

MUTE_CAP_MS: Final = 4 * 3_600_000
"""After so long in a service mode that mutes it a rule speaks all the same: somebody forgot the switch."""

AT_LEAST: Final = 3
"""Fewer silent devices than this are no silent site, however small it is."""

SITE: Final = "site"
"""The kind of rules about a whole site, beside those of devices."""


class Quorum(NamedTuple):
    """How much of a site must be silent: this share of its devices (0 to 1), and at least so many."""

    share: float
    at_least: int


class Flap(NamedTuple):
    """An incident that comes so often within so long is held open as unstable, and told once."""

    changes: int
    within_ms: int


class Rule(NamedTuple):
    """One rule, ready to run. Exactly one of `when` (alone), `events` and `silence_ms` makes it fire."""

    id: str
    """A step of a severity ladder has that of its rule and its urgency: `port-hot.p1`."""
    kind: str
    part: Literal["device", "port"]
    finding: Finding
    version: str
    """Short hash of all that decides when it fires and how urgent it is; texts for people are left out."""
    when: Condition | None
    events: frozenset[str]
    silence_ms: int | None
    quorum: Quorum | None
    """Of rules of a site, else None."""
    for_ms: int
    clear: Condition | None
    clear_for_ms: int
    keep_ms: int
    deadline_ms: int
    mute_in: frozenset[str]
    mute_cap_ms: int
    """0: for ever."""
    schedule: Schedule | None
    inhibited_by: frozenset[str]
    """Groups of the same device, or of its site, that hold it back while they fire."""
    flap: Flap | None
    watched: frozenset[str]
    """Fields whose new values can change what the rule says."""
    watched_faults: frozenset[str]
    """Faults whose coming and going can change it, by `active(...)`."""
    within_ms: int = 0
    """Of event rules with a condition: it may also become true so long after the event."""

    @property
    def plain(self) -> bool:
        """Whether values alone decide: all of its conditions are plain and it has no schedule."""
        return self.schedule is None and all(one.plain for one in (self.when, self.clear) if one is not None)
