"""Units of numbers in conditions: what may be compared, and how a duration takes the unit of what it meets.

A unit is a product of powers (`m/s` is m¹ s⁻¹), so that a quotient of equal units has none and `rate` can add "/s".
Three numbers have no power at all: one without a unit (`trips`), a bare number of the text, which fits any unit, and a
recorded fact of the device, of which nobody knows the unit (None).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final, NamedTuple


class Unit(NamedTuple):
    """Powers by name, sorted. `bare`: a number as written, which fits any unit."""

    powers: tuple[tuple[str, int], ...] = ()
    bare: bool = False

    def __str__(self) -> str:
        above = [_power(name, power) for name, power in self.powers if power > 0]
        below = [_power(name, -power) for name, power in self.powers if power < 0]
        if not self.powers:
            return "a number without a unit"
        return "·".join(above or ["1"]) + "".join(f"/{one}" for one in below)


BARE: Final = Unit(bare=True)
NONE: Final = Unit()

TIMES_S: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
"""Units of time that a field may have, in seconds."""

DURATIONS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
"""How durations are written: 250ms 3s 5m 2h 1d."""

MEASURES: Final = {
    **{one: one for one in ("W", "A", "mA", "V", "kWh", "°C", "mg", "mm", "kg", "dB", "%")},
    "C": "°C",
    "mps": "m/s",
}
"""How measured values are written, and the unit that fields spell."""

_FACTS: Final = {"_mps": "m/s", "_kg": "kg", "_m": "m", "_s": "s"}
"""Endings of the names of recorded facts that say their unit."""


def unit_of(text: str) -> Unit:
    """The unit that a field or a parameter spells; "" is a number without a unit."""
    powers: Counter[str] = Counter()
    for index, part in enumerate(MEASURES.get(text, text).split("/")):
        for name in (one for one in part.split("·") if one not in ("", "1")):
            base, _, power = name.partition("^")
            powers[base] += (-1 if index else 1) * (int(power) if power.isdecimal() and len(power) < 3 else 1)
    return _made(powers)


def fact_unit(name: str) -> Unit | None:
    """The unit of `device.NAME`, as far as its name tells."""
    return next((unit_of(unit) for ending, unit in _FACTS.items() if name.endswith(ending)), None)


def fit(left: Unit | None, right: Unit | None) -> bool:
    """Whether the two may be compared and added."""
    return left is None or right is None or left.bare or right.bare or left.powers == right.powers


def sum_unit(left: Unit | None, right: Unit | None) -> Unit | None:
    """The unit of a sum of two that fit. With a fact of unknown unit: what the other says, if that is a unit."""
    known = [one for one in (left, right) if one is not None and not one.bare]
    if known:
        return known[0]
    return None if left is None or right is None else BARE


def product_unit(left: Unit | None, right: Unit | None, *, divided: bool = False) -> Unit | None:
    """The unit of a product or quotient; a bare number or one without a unit keeps the other's."""
    if left is None or right is None:
        return None
    powers = Counter(dict(left.powers))
    for name, power in right.powers:
        powers[name] += -power if divided else power
    return _made(powers)._replace(bare=left.bare and right.bare)


def time_factor(unit: Unit | None, to: Unit | None) -> float | None:
    """By what a number in one unit of time is multiplied to be in the other; None unless both are units of time."""
    source, target = _time_s(unit), _time_s(to)
    return None if source is None or target is None else source / target


def duration_ms(text: str) -> int | None:
    """Milliseconds of a duration as it is written (`1.5h`), None when it is none."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)", text)
    return round(float(match[1]) * DURATIONS_MS[match[2]]) if match else None


def written(duration_ms: int) -> str:
    """A duration as it is written, in the largest unit that needs no fraction."""
    unit = next(one for one in ("d", "h", "m", "s", "ms") if duration_ms % DURATIONS_MS[one] == 0)
    return f"{duration_ms // DURATIONS_MS[unit]}{unit}"


def _time_s(unit: Unit | None) -> float | None:
    if unit is None or len(unit.powers) != 1 or unit.powers[0][1] != 1:
        return None
    return TIMES_S.get(unit.powers[0][0])


def _made(powers: Counter[str]) -> Unit:
    return Unit(tuple(sorted((name, power) for name, power in powers.items() if power)))


def _power(name: str, power: int) -> str:
    return name if power == 1 else f"{name}^{power}"
