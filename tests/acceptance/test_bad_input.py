"""Every bad message of the case files, through a real broker: parked with its reason, and the next good one is on time."""

from __future__ import annotations

from typing import Any

GOOD = "tizhuang/v1/fenghe/elevator/lift-01/telemetry"


def _publishable(case: Any) -> bool:
    """A broker refuses topics with wildcards or NUL, and our filter asks for six levels and more."""
    return case.topic.count("/") >= 5 and not set("+#\0") & set(case.topic)
