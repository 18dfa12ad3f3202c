"""Tracks against lists: any order of arrival, repeats, forgetting, cutting, and the instant of the next change."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.buckets import TAIL, BucketTrack
from alerts.samples import MAX_SAMPLES, RawTrack
from alerts.units import duration_ms
from alerts.windows import Track, keep_ms, step_ms
from core.reading import Value

WINDOW_MS = 1_000
STEP_MS = 100
QUESTIONS = ("samples", "changes", "mean", "least", "most", "total", "spread", "delta", "rate")

Samples = list[tuple[int, float]]
# Thousandths that a double holds exactly, so that a list of fractions and a track must agree.
values = st.integers(-4_000, 4_000).map(lambda eighths: eighths / 8)
times = st.integers(-300, 3_000)
samples = st.lists(st.tuples(times, values), max_size=120)


def expected(kept: Samples, now: int, after: int) -> dict[str, float | None]:
    """What every question is answered over the samples in (after, now], by the book."""
    seen = [one for one in kept if after < one[0] <= now]
    before = [value for ts, value in kept if ts <= after][-1:]
    numbers = [Fraction(value) for _ts, value in seen]
    steps = list(pairwise(numbers))
    enough = len(seen) > 1
    mean = sum(numbers) / len(numbers) if numbers else Fraction(0)
    grown = sum(two - one if two >= one else two for one, two in steps)
    return {
        "samples": len(seen),
        "changes": sum(one != two for one, two in pairwise([*before, *numbers])) if seen else 0,
        "mean": float(mean) if seen else None,
        "least": float(min(numbers)) if seen else None,
        "most": float(max(numbers)) if seen else None,
        "total": float(sum(numbers)) if seen else None,
        "spread": math.sqrt(sum((one - mean) ** 2 for one in numbers) / (len(numbers) - 1)) if enough else None,
        "delta": float(numbers[-1] - numbers[0]) if enough else None,
        "rate": float(grown * 1_000 / (seen[-1][0] - seen[0][0])) if enough else None,
    }


def answers(track: Track, now: int, window_ms: int = WINDOW_MS) -> dict[str, Any]:
    return {question: getattr(track, question)(now, window_ms) for question in QUESTIONS}


def filled(track: Track, every: Samples) -> Track:
    for ts, value in every:
        track.add(ts, value)
    return track


def in_order(every: Samples) -> Samples:
    """The last word on every instant."""
    return sorted(dict(every).items())


def unreached(now: int) -> int:
    """The last instant that a bucketed window does not reach: a bucket counts whole."""
    return (now - WINDOW_MS - STEP_MS) // STEP_MS * STEP_MS + STEP_MS - 1


def about(one: dict[str, float | None]) -> dict[str, Any]:
    return {name: value if value is None else pytest.approx(value, rel=1e-9, abs=1e-6) for name, value in one.items()}


@given(samples, times)
def test_a_raw_track_is_a_sorted_list(every: Samples, now: int):
    assert answers(filled(RawTrack(), every), now) == about(expected(in_order(every), now, now - WINDOW_MS))


@given(samples, times, st.integers(0, 500))
def test_forgetting_what_no_window_reaches_changes_no_answer(every: Samples, now: int, later: int):
    for track, reach in ((RawTrack(), WINDOW_MS), (BucketTrack(STEP_MS, WINDOW_MS + STEP_MS), WINDOW_MS + STEP_MS)):
        filled(track, every)
        before = answers(track, now + later)
        track.forget(now - reach)
        assert answers(track, now + later) == before


@given(samples, times)
def test_a_cut_track_is_whole_again_from_the_instant_it_names(every: Samples, cut: int):
    for make in (RawTrack, lambda: BucketTrack(STEP_MS, 4_000)):
        orderly = in_order(every)
        track, whole = filled(make(), orderly), filled(make(), orderly)
        missing = track.truncate(cut)
        assert missing <= cut + 1
        assert track.samples(5_000, 10_000) == sum(ts < missing for ts, _value in orderly)
        filled(track, [one for one in orderly if one[0] >= missing])
        assert answers(track, 5_000, 10_000) == answers(whole, 5_000, 10_000)


@given(st.lists(st.tuples(times, values), max_size=TAIL), times)
def test_a_bucketed_track_is_exact_in_any_order_as_far_as_its_tail_reaches(every: Samples, now: int):
    track = filled(BucketTrack(STEP_MS, 4_000), every)
    assert answers(track, now) == about(expected(in_order(every), now, unreached(now)))


@given(st.lists(st.tuples(times, values), max_size=200), st.integers(3_000, 4_200))
def test_a_bucketed_track_is_exact_in_order_of_time(every: Samples, now: int):
    track = filled(BucketTrack(STEP_MS, 4_000), in_order(every))
    assert answers(track, now) == about(expected(in_order(every), now, unreached(now)))


@given(st.lists(st.tuples(times, values), max_size=160, unique_by=lambda one: one[0]), st.integers(3_000, 4_200))
def test_sums_and_extremes_do_not_depend_on_the_order_of_arrival(every: Samples, now: int):
    late, orderly = filled(BucketTrack(STEP_MS, 4_000), every), filled(BucketTrack(STEP_MS, 4_000), in_order(every))
    same = [name for name in QUESTIONS if name not in ("changes", "rate")]
    assert [getattr(late, name)(now, WINDOW_MS) for name in same] == [
        getattr(orderly, name)(now, WINDOW_MS) for name in same
    ]


@given(st.lists(st.tuples(times, values), max_size=140), times)
def test_the_content_stays_until_the_instant_that_is_named(every: Samples, now: int):
    for track in (filled(RawTrack(), every), filled(BucketTrack(STEP_MS, 4_000), in_order(every))):
        edge = track.oldest_leaving(now, WINDOW_MS)
        assert edge is None or edge > now
        same = range(now, min(now + 5_000 if edge is None else edge, now + 5_000), 7)
        assert all(answers(track, instant) == answers(track, now) for instant in same)
        if edge is not None and isinstance(track, RawTrack):
            kept = [ts for ts, _value in in_order(every)]
            assert edge - WINDOW_MS in kept or edge in kept


@given(
    samples,
    st.lists(st.tuples(times, st.sampled_from([300, 500, 550, 1_000, 2_500]), st.integers(0, 20)), max_size=12),
)
def test_no_answer_depends_on_what_was_asked_before(every: Samples, asked: list[tuple[int, int, int]]):
    track, known = BucketTrack(STEP_MS, 4_000), 0
    for now, window_ms, more in asked:
        filled(track, every[known : known + more])
        known += more
        fresh = filled(BucketTrack(STEP_MS, 4_000), every[:known])
        assert answers(track, now, window_ms) == answers(fresh, now, window_ms)


def test_a_sum_of_tenths_is_exact_in_buckets():
    track = filled(BucketTrack(60_000, 7_200_000), [(ts, 0.1) for ts in range(0, 1_000_000, 1_000)])
    assert track.total(1_000_000, 3_600_000) == 100.0
    assert track.spread(1_000_000, 3_600_000) == 0.0


def test_a_spread_of_large_values_loses_nothing():
    track = filled(BucketTrack(60_000, 7_200_000), [(ts, 1e9 + ts % 2) for ts in range(100)])
    assert track.spread(1_000, 3_600_000) == pytest.approx(math.sqrt(25 / 99))


@pytest.mark.parametrize("track", [RawTrack(), BucketTrack(60_000, 7_200_000)])
def test_an_empty_track(track: Track):
    empty = dict.fromkeys(QUESTIONS) | {"samples": 0, "changes": 0}
    assert answers(track, 0) == empty
    assert track.oldest_leaving(0, WINDOW_MS) is None


@pytest.mark.parametrize("make", [RawTrack, lambda: BucketTrack(60_000, 7_200_000)])
def test_text_only_changes(make: Any):
    track = make()
    words: list[tuple[int, Value]] = [(1, "open"), (2, "open"), (3, "closed"), (5, "open"), (4, "\ud800")]
    for ts, word in words:
        track.add(ts, word)
    assert (track.changes(5, 100), track.samples(5, 100)) == (3, 5)
    assert track.changes(5, 2) in (2, 3)


@pytest.mark.parametrize("make", [RawTrack, lambda: BucketTrack(60_000, 7_200_000)])
def test_what_is_no_finite_number_is_not_kept(make: Any):
    track = make()
    for index, value in enumerate((float("nan"), float("inf"), 10**400, True, 3)):
        track.add(index, value)
    assert (track.samples(10, 100), track.total(10, 100)) == (2, 4.0)


def test_the_largest_values_do_not_overflow():
    track = filled(BucketTrack(60_000, 7_200_000), [(ts, (-1) ** ts * 1.7e308) for ts in range(200)])
    assert track.most(1_000, 3_600_000) == 1.7e308
    assert track.total(1_000, 3_600_000) == 0.0
    assert track.spread(1_000, 3_600_000) == pytest.approx(2**60, rel=0.01)


def test_a_bool_is_a_share():
    track = filled(RawTrack(), [(1, True), (2, False), (3, True), (4, True)])
    assert track.mean(4, 100) == 0.75


def test_a_change_after_a_long_pause_is_dated_by_the_sample_that_shows_it():
    for track in (RawTrack(), BucketTrack(60_000, 660_000)):
        filled(track, [(0, 1.0), (5_000_000, 2.0)])
        track.forget(4_000_000)
        assert track.changes(5_000_000, 600_000) == 1


def test_memory_is_bounded():
    raw, buckets = RawTrack(), BucketTrack(60_000, 660_000)
    for ts in range(0, 100_000_000, 10_000):
        raw.add(ts, 1.0)
        buckets.add(ts, 1.0)
    assert len(raw) == MAX_SAMPLES
    assert len(buckets._buckets()) <= 660_000 // 60_000 + 4
    assert len(buckets._tail) <= TAIL


@pytest.mark.parametrize(
    ("window", "step"),
    [
        ("1s", "0s"),
        ("10m", "0s"),
        ("601s", "1m"),
        ("11m", "1m"),
        ("30m", "2m"),
        ("1h", "5m"),
        ("839m", "69m"),
        ("14h", "1h"),
        ("1d", "2h"),
        ("7d", "14h"),
        ("30d", "60h"),
    ],
)
def test_how_finely_a_window_is_kept(window: str, step: str):
    window_ms, kept = duration_ms(window), duration_ms(step)
    assert window_ms is not None
    assert kept is not None
    assert (step_ms(window_ms), keep_ms(window_ms)) == (kept, window_ms + kept)
