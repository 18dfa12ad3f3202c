"""What the API works with. Opened and closed by whoever starts it (`tizhuang.py`, or a test): the API owns none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alerts.rules import Rule
from core.clock import Clock
from core.settings import Settings
from core.stats import IngestStats
from storage.incidents import Incidents
from storage.outbox import Outbox
from storage.quarantine import Quarantine
from storage.registry import Registry
from storage.series import SeriesStore
from storage.tickets import Tickets


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
    rules: Sequence[Rule]
    stats: Callable[[], IngestStats | None]
    """Counts of the ingest worker in this process; None where another process runs it."""
    now: Clock
