"""What the API works with. Opened and closed by whoever starts it (`tizhuang.py`, or a test): the API owns none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from alerts.rulebook import RuleBook
from core.clock import Clock
from core.settings import Settings
from core.stats import IngestStats
from storage.alarm_quality import AlarmQuality
from storage.incidents import Incidents
from storage.outbox import Outbox
from storage.quarantine import Quarantine
from storage.registry import Registry
from storage.series import SeriesStore
from storage.silences import Silences
from storage.tickets import Tickets


class RulesState(NamedTuple):
    """The rules in force."""

    book: RuleBook
    troubles: Mapping[str, str]
    """Rules that could not be evaluated, with the last reason."""
    refused: str
    """Why the rule files as they are now are not in force; empty: they are."""


@dataclass(frozen=True)
class Services:
    """One of each."""

    settings: Settings
    registry: Registry
    incidents: Incidents
    tickets: Tickets
    quarantine: Quarantine
    outbox: Outbox
    series: SeriesStore
    rules: Callable[[], RulesState]
    stats: Callable[[], IngestStats | None]
    """Counts of the ingest worker in this process; None where another process runs it."""
    now: Clock
    silences: Silences
    alarm_quality: AlarmQuality
