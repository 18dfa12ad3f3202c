"""What passes between the rule engine and the records: where a rule stands, and what an incident keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from core.faults import Severity


class Words(NamedTuple):
    """One text in both languages."""

    zh: str
    en: str


class Finding(NamedTuple):
    """What it means when a rule fires. Rules of one group share an incident and a ticket."""

    rule_id: str
    group: str
    severity: Severity
    title: Words
    what_to_do: Words
    close: Literal["person", "telemetry"]
    """Whether the incident may close by itself when the fault is gone and nobody has taken the ticket on."""
    needs_clear: bool
    """An entrapment: a person must state that it is over, telemetry never can (EN 81-28)."""
    reopen_ms: int = 0
    """A fault that comes back so soon after its incident was closed opens that one again; later it is a new one,
    linked to the old."""
    ticket: Mapping[str, str] = {}
    """What the ticket starts with: `service_level`, `checklist`, `dispatch`; each may be missing."""


class RuleState(NamedTuple):
    """Where one rule stands on one part of a device: what must survive a restart. Times: device time, Unix ms."""

    device_id: str
    part: str
    rule_id: str
    state: Literal["idle", "pending", "held", "firing"]
    """`held`: it would fire, but what inhibits it is firing."""
    since: int
    changed: int
    event_ids: tuple[str, ...] = ()
    """The last events taken, so that a repeat is known."""
    version: str = ""
    """Of the rule that decided this."""
    memo: Mapping[str, Any] = {}
    """The rest of its course: `clearing` (since when it is over), `flips` (when it fired), `unstable`; JSON."""


class Change(NamedTuple):
    """One decision of the engine."""

    finding: Finding
    state: RuleState
    effect: Literal["none", "raise", "ease", "clear"]
    """`raise`: an incident must be open, at least as urgent as `severity`. `ease`: it goes on less urgent, at
    `severity`. `clear`: no rule of the group fires any more on this part."""
    at: int
    """Device time of the change, Unix ms."""
    late: bool = False
    """It reached us after the rule's deadline: history, it pages nobody."""
    evidence: Mapping[str, Any] = {}
    severity: Severity | None = None
    """How urgent the incident is now: the most urgent rule of its group that fires. None: as the finding says."""
    reason: str = ""
    """Where it was not a sample or the time alone: `late-data`, `clock-set-back`, `rule-changed`, `rule-deleted`,
    `unstable`, `settled`, `inhibition-over`."""
