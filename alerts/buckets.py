"""Samples of one field in buckets: what windows of more than ten minutes look at, in memory that does not grow.

The newest samples are kept one by one (the tail), so that late and repeated ones are put right; older ones are folded
into buckets. A sample that comes later than the tail reaches still counts exactly in count, sum, least, most, first
and last. Only the changes around it inside its bucket cannot be known, and an extreme cannot be taken back by a repeat.

Sums are whole numbers of millionths: adding whole numbers has no rounding, so no order of arrival can change the
result, and a standard deviation of large values loses nothing to cancellation.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from operator import mul, ne
from struct import Struct
from typing import Any, Final, NamedTuple

from alerts.samples import RawTrack, as_number, growth
from core.reading import Value

TAIL: Final = 64
FOLDED: Final = 16
"""So many of the tail are folded at once. The 48 that stay reach back a quarter of an hour at a sample each 20 s: as
far as the engine judges again what was overtaken."""
MICRO: Final = 1_000_000
LARGEST: Final = 2.0**60
"""Larger values count as this in sums; no field of ours goes beyond 2⁵³."""

NEVER: Final = -(2**63)
FOREVER: Final = 2**63

_RECORD: Final = Struct("<qIIIIddddd16s24s")
"""A bucket as bytes, 104 of them: a fleet has a hundred thousand such tracks. Both sums are whole numbers."""


class Bucket:
    """What is known of samples that lie side by side in time."""

    __slots__ = (
        "changes",
        "count",
        "first",
        "first_ts",
        "grown",
        "high",
        "last",
        "last_ts",
        "low",
        "squares",
        "sum",
    )

    def __init__(self, ts: int, value: float) -> None:
        self.count, self.changes, self.first_ts, self.last_ts = 1, 0, ts, ts
        self.low, self.high, self.first, self.last, self.grown = value, value, value, value, 0.0
        self.sum = _micro(value)
        self.squares = self.sum * self.sum

    def add(self, ts: int, value: float) -> None:
        """One more sample: newer than all here, or late."""
        if ts in (self.first_ts, self.last_ts):
            self._replace(ts, value)
            return
        if ts > self.last_ts:
            self._join(self.last, value)
            self.last, self.last_ts = value, ts
        elif ts < self.first_ts:
            self._join(value, self.first)
            self.first, self.first_ts = value, ts
        self._count(1, value, _micro(value))

    def extend(self, later: Bucket) -> None:
        """Joins a bucket that comes after this one."""
        self._join(self.last, later.first)
        self.last, self.last_ts = later.last, later.last_ts
        self.count += later.count
        self.changes += later.changes
        self.grown += later.grown
        self.sum += later.sum
        self.squares += later.squares
        self.low, self.high = min(self.low, later.low), max(self.high, later.high)

    @classmethod
    def of(cls, times: array[int], values: array[float], *, sums: bool, grown: bool) -> Bucket:
        """Samples in order of time as one bucket; what is not asked for is not added up."""
        made = cls(times[0], values[0])
        made.count, made.last_ts, made.last = len(times), times[-1], values[-1]
        made.low, made.high = min(values), max(values)
        made.changes = sum(map(ne, values, values[1:]))
        made.grown = sum(map(growth, values, values[1:]), 0.0) if grown else 0.0
        if sums:
            micros = [_micro(value) for value in values]
            made.sum, made.squares = sum(micros), sum(map(mul, micros, micros))
        return made

    def packed(self, start: int) -> bytes:
        """As bytes, for a bucket that begins at `start`."""
        return _RECORD.pack(
            start,
            self.count,
            self.changes,
            self.first_ts - start,
            self.last_ts - start,
            self.low,
            self.high,
            self.first,
            self.last,
            self.grown,
            self.sum.to_bytes(16, "little", signed=True),
            self.squares.to_bytes(24, "little"),
        )

    def copied(self) -> Bucket:
        """The same once more."""
        made = Bucket.__new__(Bucket)
        for name in Bucket.__slots__:
            setattr(made, name, getattr(self, name))
        return made

    def _join(self, before: float, after: float) -> None:
        self.changes += before != after
        self.grown += growth(before, after)

    def _count(self, count: int, value: float, micro: int) -> None:
        self.count += count
        self.sum += micro
        self.squares += micro * micro
        self.low, self.high = min(self.low, value), max(self.high, value)

    def _replace(self, ts: int, value: float) -> None:
        old = _micro(self.first if ts == self.first_ts else self.last)
        self.sum -= old
        self.squares -= old * old
        if ts == self.first_ts:
            self.first = value
        if ts == self.last_ts:
            self.last = value
        if self.count == 1:
            self.low = self.high = value
        self._count(0, value, _micro(value))


class _Merged(NamedTuple):
    """Folded buckets of a window as one; the same for every window that begins in [low, high) and ends from newest."""

    low: int
    high: int
    newest: int
    whole: Bucket | None
    before: float | None


class BucketTrack:
    """Buckets of `step_ms`, and a tail of newest samples.

    A window counts every bucket that starts after `now - length - step`, whole: it reaches back its length and up to
    one step more, so that nothing inside the asked length is ever missed. Buckets start at multiples of the step in
    UTC. Samples newer than `now` are not seen while they are in the tail, nor are folded buckets that begin after it.
    """

    __slots__ = ("_folded_to", "_max", "_merged", "_records", "_step_ms", "_tail")

    def __init__(self, step_ms: int, keep_ms: int) -> None:
        self._step_ms = step_ms
        self._max = keep_ms // step_ms + 3
        self._tail = RawTrack()
        self._records = bytearray()
        self._folded_to: int | None = None
        self._merged: _Merged | None = None

    def add(self, ts: int, value: Value) -> None:
        """Keeps a sample. What is no finite number and no text is left out."""
        number = as_number(value)
        if number is None:
            return
        if self._folded_to is not None and ts <= self._folded_to:
            self._fold(ts, number)
            return
        self._tail.add(ts, number)
        if len(self._tail) > TAIL:
            for one in self._tail.take(FOLDED):
                self._fold(*one)

    def restore(self, start: int, points: int, mean: float, low: float, high: float, last: float, until: int) -> None:
        """A bucket as a series store remembers it, up to `until` (not including it). What came since stays.

        Count, sum, least, most and last are exact. Squares are those of samples spread evenly between least and most,
        the first is guessed to be the extreme that the last is not near, and there was one change at least.
        """
        starts = [record[0] for record in _RECORD.iter_unpack(self._records)]
        index = bisect_left(starts, start)
        if index < len(starts) and starts[index] == start:
            return
        made = Bucket(start, low if last >= mean else high)
        made.last, made.last_ts = last, max(min(start + self._step_ms, until) - 1, start)
        made.count, made.low, made.high = points, low, high
        made.changes, made.grown = int(low != high), max(last - made.first, 0.0)
        made.sum = _micro(mean * points)
        made.squares = max(made.sum**2 // points, round((mean**2 + (high - low) ** 2 / 12) * points * MICRO**2))
        self._records[index * _RECORD.size : index * _RECORD.size] = made.packed(start)
        self._folded_to = max(self._folded_to or 0, made.last_ts)
        self._merged = None

    def forget(self, before_ts: int) -> None:
        """Drops buckets that end before this instant but for the newest of them: `changes` asks for its last value."""
        self._tail.forget(before_ts)
        count = sum(1 for _start, bucket in self._buckets() if bucket.last_ts < before_ts) - 1
        if count > 0:
            del self._records[: count * _RECORD.size]
            self._merged = None

    def truncate(self, after_ts: int) -> int:
        """Drops what is newer; a folded bucket that reaches beyond goes as a whole.

        Returns the instant from which samples are missing now.
        """
        missing = self._tail.truncate(after_ts)
        kept = [(start, bucket) for start, bucket in self._buckets() if bucket.last_ts <= after_ts]
        gone = self._buckets()[len(kept) :]
        del self._records[len(kept) * _RECORD.size :]
        self._merged = None
        self._folded_to = kept[-1][1].last_ts if kept else None
        return min(missing, gone[0][0]) if gone else missing

    def oldest_leaving(self, now: int, window_ms: int) -> int | None:
        """The next instant at which the window holds other samples by time alone, if nothing comes."""
        reach = window_ms + self._step_ms
        edges = []
        for record in _RECORD.iter_unpack(self._records):
            start, first_ts = record[0], record[0] + record[3]
            if start + reach > now:
                edges.append(start + reach if first_ts <= now else first_ts)
        first, last = self._tail.between(self._start(now - reach) + self._step_ms, now)
        if first < last:
            edges.append(self._start(self._tail.time(first)) + reach)
        if last < len(self._tail):
            edges.append(self._tail.time(last))
        return min(edges, default=None)

    def samples(self, now: int, window_ms: int) -> int:
        whole, _before = self._seen(now, window_ms)
        return whole.count if whole else 0

    def changes(self, now: int, window_ms: int) -> int:
        """How often the value became another; a change is dated by the sample that shows it."""
        whole, before = self._seen(now, window_ms)
        return whole.changes + (before is not None and before != whole.first) if whole else 0

    def mean(self, now: int, window_ms: int) -> float | None:
        whole, _before = self._seen(now, window_ms, sums=True)
        return whole.sum / (whole.count * MICRO) if whole else None

    def least(self, now: int, window_ms: int) -> float | None:
        whole, _before = self._seen(now, window_ms)
        return whole.low if whole else None

    def most(self, now: int, window_ms: int) -> float | None:
        whole, _before = self._seen(now, window_ms)
        return whole.high if whole else None

    def total(self, now: int, window_ms: int) -> float | None:
        whole, _before = self._seen(now, window_ms, sums=True)
        return whole.sum / MICRO if whole else None

    def spread(self, now: int, window_ms: int) -> float | None:
        """Standard deviation of the samples (n - 1); None for fewer than two."""
        whole, _before = self._seen(now, window_ms, sums=True)
        if whole is None or whole.count < 2:
            return None
        above = whole.count * whole.squares - whole.sum * whole.sum
        return math.sqrt(above / (whole.count * (whole.count - 1))) / MICRO

    def delta(self, now: int, window_ms: int) -> float | None:
        """Last minus first; None for fewer than two."""
        whole, _before = self._seen(now, window_ms)
        return whole.last - whole.first if whole and whole.count > 1 else None

    def rate(self, now: int, window_ms: int) -> float | None:
        """Increase of a counter per second between the first and the last sample; None for fewer than two."""
        whole, _before = self._seen(now, window_ms, grown=True)
        if whole is None or whole.count < 2:
            return None
        return whole.grown * 1_000 / (whole.last_ts - whole.first_ts)

    def _seen(
        self, now: int, window_ms: int, *, sums: bool = False, grown: bool = False
    ) -> tuple[Bucket | None, float | None]:
        """All that is in the window as one bucket, and the value before it."""
        after = now - window_ms - self._step_ms
        folded = self._merged
        if folded is None or not (folded.low <= after < folded.high and now >= folded.newest):
            folded = self._merge(after, now)
            self._merged = folded if now >= folded.newest else None
        before = folded.before
        # A bucket is in the window when it starts after `after`: so are all instants from the next start on.
        first, last = self._tail.between(self._start(after) + self._step_ms, now)
        if first:
            before = self._tail.value(first - 1)
        if first == last:
            return folded.whole, before
        times, values = self._tail.run(first, last)
        newest = Bucket.of(times, values, sums=sums, grown=grown)
        if folded.whole is None:
            return newest, before
        whole = folded.whole.copied()
        whole.extend(newest)
        return whole, before

    def _merge(self, after: int, now: int) -> _Merged:
        low, high, newest = NEVER, FOREVER, NEVER
        before: float | None = None
        whole: Bucket | None = None
        for start, bucket in self._buckets():
            if start <= after:
                low, before = start, bucket.last
                continue
            high = min(high, start)
            if bucket.first_ts > now:
                newest = FOREVER  # the past is judged: true for this instant, and for no other
                break
            newest = bucket.first_ts
            if whole is None:
                whole = bucket
            else:
                whole.extend(bucket)
        return _Merged(low, high, newest, whole, before)

    def _fold(self, ts: int, value: float) -> None:
        self._merged = None
        start = self._start(ts)
        starts = [record[0] for record in _RECORD.iter_unpack(self._records)]
        index = bisect_left(starts, start)
        at = index * _RECORD.size
        if index < len(starts) and starts[index] == start:
            bucket = _unpacked(_RECORD.unpack_from(self._records, at))
            bucket.add(ts, value)
            self._records[at : at + _RECORD.size] = bucket.packed(start)
        else:
            self._records[at:at] = Bucket(ts, value).packed(start)
        self._folded_to = ts if self._folded_to is None else max(ts, self._folded_to)
        if len(starts) > self._max:
            del self._records[: _RECORD.size]

    def _buckets(self) -> list[tuple[int, Bucket]]:
        return [(record[0], _unpacked(record)) for record in _RECORD.iter_unpack(self._records)]

    def _start(self, ts: int) -> int:
        return ts // self._step_ms * self._step_ms


def _unpacked(record: tuple[Any, ...]) -> Bucket:
    made = Bucket.__new__(Bucket)
    start, made.count, made.changes, first, last = record[:5]
    made.first_ts, made.last_ts = start + first, start + last
    made.low, made.high, made.first, made.last, made.grown = record[5:10]
    made.sum = int.from_bytes(record[10], "little", signed=True)
    made.squares = int.from_bytes(record[11], "little")
    return made


def _micro(value: float) -> int:
    return round(max(-LARGEST, min(value, LARGEST)) * MICRO)
