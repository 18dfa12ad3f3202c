"""Durations as people write them, and which device times are believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import clock


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90s", 90_000),
        ("5m", 300_000),
        ("1.5h", 5_400_000),
        ("250ms", 250),
        ("2d", 172_800_000),
        ("0s", 0),
        ("0.1s", 100),
        (" 30s ", 30_000),
        ("007m", 420_000),
    ],
)
def test_durations(text: str, ms: int):
    assert clock.duration_ms(text) == ms
    assert type(clock.duration_ms(text)) is int


@pytest.mark.parametrize(
    "text", ["", "s", "90", "90 s", "-1s", "+1s", "1e3s", ".5s", "1.s", "90S", "1h30m", "90s\n90s", "١s", "1,5h", "∞"]
)
def test_no_durations(text: str):
    with pytest.raises(ValueError, match="is not a duration; write a number and ms, s, m, h or d"):
        clock.duration_ms(text)


@given(st.text(max_size=20) | st.from_regex(r"[0-9]{1,500}(\.[0-9]{1,500})?(ms|s|m|h|d)", fullmatch=True))
def test_any_text_is_a_duration_or_a_plain_error(text: str):
    try:
        found = clock.duration_ms(text)
    except ValueError as error:
        assert "is not a duration" in str(error)  # noqa: PT017 - other texts raise nothing
    else:
        assert found >= 0


@given(st.integers(0, 10**9), st.sampled_from([("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]))
def test_whole_numbers_are_exact(number: int, unit: tuple[str, int]):
    assert clock.duration_ms(f"{number}{unit[0]}") == number * unit[1]


RX = 1_795_312_374_000


@pytest.mark.parametrize(
    ("ts", "believed"),
    [
        (clock.EARLIEST_MS - 1, False),
        (clock.EARLIEST_MS, True),
        (RX - 30 * 86_400_000, True),
        (RX, True),
        (RX + 5 * 60_000, True),
        (RX + 5 * 60_000 + 1, False),
        (0, False),
        (-1, False),
        (10**30, False),
    ],
)
def test_borders_of_belief(ts: int, believed: bool):
    assert clock.believable(ts, RX) is believed


def test_the_year_2020():
    assert clock.iso(clock.EARLIEST_MS) == "2020-01-01T00:00:00.000Z"
    assert clock.iso(clock.EARLIEST_MS - 1) == "2019-12-31T23:59:59.999Z"
