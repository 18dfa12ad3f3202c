"""How long windows are, how finely their samples are kept, and the tracks that keep them.

Up to ten minutes every sample is kept; longer windows have buckets of about a twelfth of their length, cut to whole
minutes (from 14 hours: whole hours), so that a month costs no more memory than an hour. Tens of windows of similar
length share one track.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from alerts.buckets import BucketTrack
from alerts.samples import RawTrack
from core.reading import Value

if TYPE_CHECKING:
    from alerts.condition import Series

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000

SHORTEST_MS: Final = 1_000
LONGEST_MS: Final = 30 * 24 * HOUR_MS
RAW_MS: Final = 10 * MINUTE_MS
HOURS_FROM_MS: Final = 14 * HOUR_MS
PARTS: Final = 12


class Track(Protocol):
    """Samples, and what can be asked of those in the window (now - window_ms, now].

    Asked of too few samples (`delta`, `rate` and `spread` need two) the answer is None. A track of text answers
    `samples` and `changes` only.
    """

    def add(self, ts: int, value: Value) -> None:
        """Keeps a sample, in any order; the same instant again replaces."""

    def forget(self, before_ts: int) -> None:
        """Drops what is older than that, but for the newest of it: the value that stood at that instant."""

    def truncate(self, after_ts: int) -> int:
        """Drops what is newer; returns the instant from which samples are missing now."""

    def oldest_leaving(self, now: int, window_ms: int) -> int | None:
        """The next instant after `now` at which the content of the window changes by time alone."""

    def samples(self, now: int, window_ms: int) -> int:
        """How many."""

    def changes(self, now: int, window_ms: int) -> int:
        """How often the value became another one. The first sample of all is no change."""

    def mean(self, now: int, window_ms: int) -> float | None:
        """Of the samples, not of the time between them."""

    def least(self, now: int, window_ms: int) -> float | None:
        """Smallest."""

    def most(self, now: int, window_ms: int) -> float | None:
        """Largest."""

    def total(self, now: int, window_ms: int) -> float | None:
        """Sum."""

    def spread(self, now: int, window_ms: int) -> float | None:
        """Standard deviation of the samples (n - 1)."""

    def delta(self, now: int, window_ms: int) -> float | None:
        """Last minus first."""

    def rate(self, now: int, window_ms: int) -> float | None:
        """Increase of a counter per second between first and last sample; a drop is a restart from 0."""


def step_ms(window_ms: int) -> int:
    """How finely the samples of such a window are kept: 0 for each by itself, else the length of a bucket."""
    if window_ms <= RAW_MS:
        return 0
    whole = MINUTE_MS if window_ms < HOURS_FROM_MS else HOUR_MS
    return max(window_ms // PARTS // whole, 1) * whole


def keep_ms(window_ms: int) -> int:
    """How far back the samples of such a window reach: a bucket counts as a whole."""
    return window_ms + step_ms(window_ms)


def make_track(series: Series) -> Track:
    """An empty track for a series."""
    return BucketTrack(series.step_ms, series.keep_ms) if series.step_ms else RawTrack()
