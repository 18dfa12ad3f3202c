"""Samples of one field, kept one by one: what windows of up to ten minutes look at.

A window is (now - length, now]; samples newer than `now` are not seen. Numbers are kept as doubles, bools as 0 and 1,
text as a fingerprint, because all that can be asked of text is whether it changed.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from hashlib import blake2b
from itertools import pairwise
from typing import Final

from core.reading import Value

MAX_SAMPLES: Final = 1_000
"""More are not kept: the oldest go. That is more than one each second for ten minutes."""


class RawTrack:
    """Samples in order of time, in whatever order they come; the same instant again replaces."""

    __slots__ = ("_times", "_values")

    def __init__(self) -> None:
        self._times = array("q")
        self._values = array("d")

    def __len__(self) -> int:
        return len(self._times)

    def add(self, ts: int, value: Value) -> None:
        """Keeps a sample. What is no finite number and no text is left out."""
        number = as_number(value)
        if number is None:
            return
        times = self._times
        if not times or ts > times[-1]:
            times.append(ts)
            self._values.append(number)
        else:
            index = bisect_left(times, ts)
            if times[index] == ts:
                self._values[index] = number
            else:
                times.insert(index, ts)
                self._values.insert(index, number)
        if len(times) > MAX_SAMPLES:
            del times[0], self._values[0]

    def forget(self, before_ts: int) -> None:
        """Drops samples before this instant but for the newest of them: `changes` asks what the value was before."""
        count = bisect_left(self._times, before_ts) - 1
        if count > 0:
            del self._times[:count], self._values[:count]

    def shift(self, earlier_ms: int) -> None:
        """Moves all samples onto a time line that runs so much behind."""
        self._times = array("q", (ts - earlier_ms for ts in self._times))

    def truncate(self, after_ts: int) -> int:
        """Drops what is newer; returns the instant from which samples are missing now."""
        index = bisect_right(self._times, after_ts)
        del self._times[index:], self._values[index:]
        return after_ts + 1

    def take(self, count: int) -> list[tuple[int, float]]:
        """The oldest samples (ts, value), which are no longer kept."""
        taken = list(zip(self._times[:count], self._values[:count], strict=True))
        del self._times[:count], self._values[:count]
        return taken

    def between(self, from_ts: int, to_ts: int) -> tuple[int, int]:
        """Where the samples of [from_ts, to_ts] begin and end."""
        first = bisect_left(self._times, from_ts)
        return first, max(first, bisect_right(self._times, to_ts))

    def time(self, index: int) -> int:
        """The time at such a place."""
        return self._times[index]

    def value(self, index: int) -> float:
        """The value at such a place."""
        return self._values[index]

    def run(self, first: int, last: int) -> tuple[array[int], array[float]]:
        """Times and values between two such places."""
        return self._times[first:last], self._values[first:last]

    def oldest_leaving(self, now: int, window_ms: int) -> int | None:
        """The next instant at which the window holds other samples by time alone, if nothing comes."""
        low, high = self._span(now, window_ms)
        edges = [self._times[low] + window_ms] if low < high else []
        edges += [self._times[high]] if high < len(self._times) else []
        return min(edges, default=None)

    def samples(self, now: int, window_ms: int) -> int:
        low, high = self._span(now, window_ms)
        return high - low

    def changes(self, now: int, window_ms: int) -> int:
        """How often the value became another; a change is dated by the sample that shows it."""
        low, high = self._span(now, window_ms)
        return sum(one != two for one, two in pairwise(self._values[max(low - 1, 0) : high]))

    def mean(self, now: int, window_ms: int) -> float | None:
        values = self._seen(now, window_ms)
        return math.fsum(values) / len(values) if values else None

    def least(self, now: int, window_ms: int) -> float | None:
        return min(self._seen(now, window_ms), default=None)

    def most(self, now: int, window_ms: int) -> float | None:
        return max(self._seen(now, window_ms), default=None)

    def total(self, now: int, window_ms: int) -> float | None:
        values = self._seen(now, window_ms)
        return math.fsum(values) if values else None

    def spread(self, now: int, window_ms: int) -> float | None:
        """Standard deviation of the samples (n - 1); None for fewer than two."""
        values = self._seen(now, window_ms)
        if len(values) < 2:
            return None
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))

    def delta(self, now: int, window_ms: int) -> float | None:
        """Last minus first; None for fewer than two."""
        values = self._seen(now, window_ms)
        return values[-1] - values[0] if len(values) > 1 else None

    def rate(self, now: int, window_ms: int) -> float | None:
        """Increase of a counter per second between the first and the last sample; None for fewer than two."""
        low, high = self._span(now, window_ms)
        if high - low < 2:
            return None
        grown = math.fsum(growth(one, two) for one, two in pairwise(self._values[low:high]))
        return grown * 1_000 / (self._times[high - 1] - self._times[low])

    def _span(self, now: int, window_ms: int) -> tuple[int, int]:
        times = self._times
        return bisect_right(times, now - window_ms), bisect_right(times, now)

    def _seen(self, now: int, window_ms: int) -> array[float]:
        low, high = self._span(now, window_ms)
        return self._values[low:high]


def as_number(value: Value) -> float | None:
    """What is kept of a value; None for what is not finite."""
    if isinstance(value, str):
        return float(int.from_bytes(blake2b(value.encode(errors="surrogatepass"), digest_size=6).digest()))
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def growth(before: float, after: float) -> float:
    """How much a counter grew. A drop is a restart from 0: it has grown to what it shows since."""
    return after - before if after >= before else after
