"""Counts of the ingest worker, as exported and shown.

Conservation, in messages, at every moment: received + carried = stored + duplicate + quarantined + spooled + in flight.
"""

from __future__ import annotations

from typing import NamedTuple


class IngestStats(NamedTuple):
    """Counts since the start of the worker."""

    connected: bool = False
    received: int = 0
    carried: int = 0
    """Messages that an earlier process left in the spool."""
    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0
    spooled: int = 0
    """Messages in the spool now: acknowledged, on disk, on their way to the series store."""
    spool_bytes: int = 0
    spool_limit_bytes: int = 0
    spool_oldest_rx: int | None = None
    """When the oldest messages in the spool came, Unix ms."""
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
    store_away: str = ""
    """Why the series store does not take data just now, or empty. Alerts go on, messages go to the spool."""
    blocked_by: str = ""
    """Why nothing is acknowledged just now (records away, spool full), or empty."""
