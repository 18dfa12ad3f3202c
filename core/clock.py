"""Times and durations. Times are Unix milliseconds (UTC) as int; durations in rule files are text like `30s`, `5m`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

Clock = Callable[[], int]
"""The wall clock, Unix ms; handed in, so that pure code and tests decide what time it is."""

EARLIEST_MS: Final = 1_577_836_800_000
"""2020-01-01T00:00Z. A device time before it means that the device lost its clock (they start in 1970; DOMAIN 4.1)."""

MAX_AHEAD_MS: Final = 5 * 60_000
"""A device time further ahead of the receive time than this is not believed (DOMAIN 4.1)."""

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(ms|s|m|h|d)")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def believable(ts_ms: int, rx_ms: int) -> bool:
    """Whether a device's own time can be used for a message received at `rx_ms`."""
    return EARLIEST_MS <= ts_ms <= rx_ms + MAX_AHEAD_MS


def duration_ms(text: str) -> int:
    """`90s`, `5m`, `1.5h`, `250ms`, `2d` as milliseconds. ValueError says what is expected."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}' is not a duration; write a number and ms, s, m, h or d, like 90s")
    return round(float(match[1]) * _UNIT_MS[match[2]])


def iso(ts_ms: int) -> str:
    """`2026-11-22T01:52:54.000Z`: for logs and API answers."""
    return datetime.fromtimestamp(ts_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
