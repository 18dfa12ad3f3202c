"""Counts of the ingest worker, as exported and shown. Conservation: received = stored + duplicate + quarantined + in
flight, in messages, at every moment at which the worker is between two batches."""

from __future__ import annotations

from typing import NamedTuple


class IngestStats(NamedTuple):
    """Counts since the start of the worker."""

    connected: bool = False
    received: int = 0
    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0
    in_flight: int = 0
    acked: int = 0
    readings: int = 0
    events: int = 0
    clockless: int = 0
    """Messages whose device time was not believed; the receive time stands in."""
    late_samples: int = 0
    """Samples older than what the engine had already judged: stored, not judged."""
    alerts_lost: int = 0
    """Decisions of the rules that a bug of ours kept from being written; the log has each. Not 0: look at once."""
    unknown_fields: int = 0
    """Different field names outside the contract that are kept."""
    unknown_fields_dropped: int = 0
    """Values left out because there were too many different names."""
    blocked_by: str = ""
    """Why the worker is waiting (a database that does not take data), or empty."""
