"""The short-hand of test cases for the values of a field over time: `70 80*3 +2*5 _ stale`.

| word | says |
|---|---|
| `80`, `open`, `true` | this value |
| `80*3` | it, three times |
| `+2*5` | five values, each 2 more than the one before it; `+-2*5`: 2 less |
| `_`, `_*4` | nothing: the field is not in this message; nor in four |
| `stale` | nothing, until the value is too old to be known |
"""

from __future__ import annotations

import math
import re
from typing import Final

from core.fields import FieldSpec
from core.reading import Value

MOST_VALUES: Final = 100_000
_REPEAT = re.compile(r"(.+)\*([0-9]{1,6})")


def values_of(text: str, spec: FieldSpec, every_ms: int) -> list[Value | None]:
    """One value per message, None where the field is left out. ValueError says what is expected."""
    found: list[Value | None] = []
    for word in text.split():
        what, times = _taken_apart(word)
        if len(found) + times > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
        if what == "_":
            found += [None] * times
        elif what == "stale":
            gaps = spec.stale_ms // every_ms + 1
            if gaps > MOST_VALUES:
                raise ValueError(f"{spec.name} is never too old to be known, or not within {MOST_VALUES:,} messages")
            found += [None] * gaps
        elif what.startswith("+"):
            found += _ramp(found, what, times, spec)
        else:
            found += [value_of(what, spec)] * times
    return found


def value_of(word: object, spec: FieldSpec) -> Value:
    """A value as the field takes it: `80`, `true`, `open`. ValueError says what is expected."""
    given = str(word).lower() if isinstance(word, bool) else str(word)
    if spec.type is bool:
        if given not in ("true", "false"):
            raise ValueError(f"'{given}' is not true or false, which {spec.name} is")
        return given == "true"
    if spec.type is str:
        if spec.choices and given not in spec.choices:
            raise ValueError(f"'{given}' is no {spec.name}: one of {', '.join(spec.choices)}")
        return given
    try:
        number = float(given)
    except ValueError:
        hint = f"; repeats are written {given.replace('x', '*')}" if re.fullmatch(r"[0-9.]+x[0-9]+", given) else ""
        raise ValueError(f"'{given}' is no number, which {spec.name} is{hint}") from None
    if not math.isfinite(number) or (spec.type is int and number != int(number)):
        raise ValueError(f"'{given}' cannot be a value of {spec.name}")
    return int(number) if spec.type is int else number


def _taken_apart(word: str) -> tuple[str, int]:
    repeat = _REPEAT.fullmatch(word)
    return (repeat[1], int(repeat[2])) if repeat else (word, 1)


def _ramp(found: list[Value | None], word: str, times: int, spec: FieldSpec) -> list[Value]:
    before = next((value for value in reversed(found) if value is not None), None)
    if isinstance(before, bool) or not isinstance(before, int | float):
        raise ValueError(f"'{word}' goes on from a number, and there is none before it")  # noqa: TRY004 - a fault of the file
    try:
        step = float(word[1:])
    except ValueError:
        raise ValueError(f"'{word}' is no step like +2 or +-0.5") from None
    # Rounded, so that 20 +0.1*3 ends at 20.3 and not a little beside it.
    return [value_of(round(before + step * number, 9), spec) for number in range(1, times + 1)]
