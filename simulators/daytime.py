"""The day of a neighbourhood: when people call lifts and plug bikes in, how warm it is (DOMAIN section 7).

Clocks here are simulated Unix seconds; hours of the day are China Standard Time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Final, NamedTuple

DAY_S: Final = 86_400.0
CHINA_OFFSET_S: Final = 8 * 3_600
"""UTC+8 without summer time, so no time zone database is needed."""

LIFT_CALLS: Final = (
    *(0.1, 0.1, 0.1, 0.1, 0.2, 0.6),  # 00-05 h
    *(1.3, 2.0, 2.2, 1.7, 1.2, 1.3),  # 06-11 h
    *(1.1, 0.9, 0.9, 1.1, 1.3, 1.7),  # 12-17 h
    *(2.1, 1.7, 1.1, 0.7, 0.4, 0.2),  # 18-23 h
)
"""Calls per hour of the day, relative to the daily mean: peaks 08-10 h and 18-20 h."""

DOWNWARD: Final = (
    *(0.3, 0.3, 0.3, 0.4, 0.7, 0.9),
    *(0.9, 0.9, 0.8, 0.7, 0.5, 0.4),
    *(0.5, 0.6, 0.6, 0.5, 0.4, 0.3),
    *(0.2, 0.3, 0.3, 0.2, 0.2, 0.2),
)
"""Share of calls that go down to the street, by hour: out in the morning, home in the evening."""

PLUG_INS: Final = (
    *(0.2, 0.1, 0.1, 0.1, 0.1, 0.1),
    *(0.2, 0.3, 0.4, 0.4, 0.4, 0.5),
    *(0.7, 0.6, 0.4, 0.4, 0.6, 1.4),
    *(3.2, 3.8, 3.6, 3.0, 2.2, 0.8),
)
"""Bikes plugged in per hour of the day, relative to the daily mean: mostly 18-22 h."""


class Pace(NamedTuple):
    """How busy a neighbourhood is. The defaults are our own choice within the ranges of DOMAIN section 7."""

    calls_per_day: float = 65.0
    """Per lift; a call makes one or two trips, so this is about 120 trips a day."""
    sessions_per_day: float = 0.7
    """Per port of a pile."""
    by_hour: bool = True
    """Whether rates follow the hour of the day; a demo is as busy at night as at noon."""
    port_report_s: float = 15.0
    """How often a charging port reports. Real piles take 300 s (DOMAIN 4.1); shorter looks alive."""


def hour_of(clock_s: float) -> float:
    """Local hour of the day, 0.0 to 24.0."""
    return (clock_s + CHINA_OFFSET_S) % DAY_S / 3_600


def share(by_hour: Sequence[float], clock_s: float) -> float:
    """The entry of a 24-hour table that holds at `clock_s`."""
    return by_hour[int(hour_of(clock_s)) % 24]


def wait_s(clock_s: float, per_day: float, by_hour: Sequence[float] | None, rng: random.Random) -> float:
    """Seconds until the next arrival of a Poisson process of `per_day` > 0 arrivals a day.

    With a 24-hour table of relative rates the process follows the hour, by thinning: exact, whatever the steps.
    """
    if by_hour is None:
        return rng.expovariate(per_day / DAY_S)
    peak = max(by_hour)
    at_s = clock_s
    while True:
        at_s += rng.expovariate(per_day * peak / DAY_S)
        if rng.random() * peak < share(by_hour, at_s):
            return at_s - clock_s


def outdoor_c(clock_s: float) -> float:
    """Air temperature in degC: our own mild day, coldest at 05 h, warmest at 15 h."""
    return 19.0 - 5.0 * math.cos((hour_of(clock_s) - 4.0) / 24 * 2 * math.pi)


def towards(value: float, target: float, dt_s: float, settle_s: float) -> float:
    """First-order approach of `value` to `target` over `dt_s`, with time constant `settle_s`."""
    return target + (value - target) * math.exp(-dt_s / settle_s)
