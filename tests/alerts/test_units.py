"""Units: how they are read and written, and what may meet what."""

from __future__ import annotations

import pytest

from alerts.expression import Param, compile_condition
from alerts.units import BARE, NONE, duration_ms, fit, product_unit, sum_unit, time_factor, unit_of, written
from core.errors import ExpressionError
from core.kinds import KINDS, all_fields
from tests.alerts.scopes import FAULTS, FIELDS, World

PARAMS = {"hold": Param(90.0, "s"), "hot": Param(80.0, "°C"), "share": Param(2.0, ""), "word": Param("open", "")}
VALUES = {
    "speed_mps": 2.0,
    "temp_c": 75.0,
    "power_w": 460.0,
    "load_kg": 900.0,
    "leakage_ma": 30.0,
    "current_a": 2.0,
    "voltage_v": 230.0,
    "duration_s": 120,
    "run_hours": 2.5,
    "battery_pct": 15.0,
    "trips": 8,
    "x": 3.0,
}


@pytest.mark.parametrize("text", ["m/s", "°C", "W", "kWh", "mA", "1/s", "W·s", "m/s^2", "m/s/kg"])
def test_a_unit_is_written_as_it_is_read(text: str):
    assert str(unit_of(str(unit_of(text)))) == str(unit_of(text))


def test_every_field_has_a_unit_that_can_be_read():
    for kind in KINDS:
        for spec in all_fields(kind).values():
            assert str(unit_of(spec.unit)) == (spec.unit or "a number without a unit")


def test_products_and_sums():
    speed, metre, second = unit_of("m/s"), unit_of("m"), unit_of("s")
    assert product_unit(speed, second) == metre
    assert product_unit(metre, second, divided=True) == speed
    assert product_unit(speed, speed, divided=True) == NONE
    assert product_unit(speed, BARE) == speed
    assert product_unit(BARE, BARE) == BARE
    assert product_unit(speed, None) is None
    assert sum_unit(BARE, speed) == sum_unit(speed, None) == speed
    assert sum_unit(BARE, None) is None
    assert sum_unit(BARE, BARE) == BARE
    assert not fit(NONE, speed)
    assert fit(None, speed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("250ms", 250), ("3s", 3_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000), ("1.5h", 5_400_000)],
)
def test_durations(text: str, expected: int):
    assert duration_ms(text) == expected
    assert duration_ms(written(expected)) == expected


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "-5m", "5min", "1e3s", "٣s"])
def test_no_durations(text: str):
    assert duration_ms(text) is None


def test_time_factors():
    assert time_factor(unit_of("s"), unit_of("h")) == pytest.approx(1 / 3_600)
    assert time_factor(unit_of("s"), unit_of("m/s")) is None
    assert time_factor(None, unit_of("s")) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("duration_s == 2m", True),
        ("duration_s == 120", True),
        ("duration_s == 0.00003d + 117408ms", True),
        ("run_hours == 2h + 30m", True),
        ("run_hours > 9000s", False),
        ("run_hours >= 9000s", True),
        ("9000s <= run_hours", True),
        ("duration_s + 1m == 3m", True),
        ("run_hours - 30m == 2", True),
        ("duration_s > hold", True),
        ("run_hours > hold", True),
        ("temp_c < 80C", True),
        ("temp_c < 80°C", True),
        ("temp_c < 80", True),
        ("temp_c < hot", True),
        ("temp_c < hot - 10", False),
        ("temp_c < hot + 5C", True),
        ("power_w == 460W", True),
        ("power_w / voltage_v == current_a", None),
        ("power_w / 2 == 230W", True),
        ("power_w / trips > 50W", True),
        ("speed_mps <= 2mps", True),
        ("speed_mps * 3s / 3s == 2mps", True),
        ("speed_mps / 1mps == 2", True),
        ("speed_mps / 1mps == x - 1", True),
        ("leakage_ma >= 30mA", True),
        ("battery_pct < 20%", True),
        ("-battery_pct < -10%", True),
        ("load_kg > 1.1 * device.rated_load_kg", True),
        ("load_kg > 1.1 * device.rated", True),
        ("load_kg / device.rated_load_kg > 1.1", True),
        ("x > share", True),
        ("power_w > share", True),
        ("abs(-5mps) > speed_mps", True),
        ("coalesce(duration_s, 1h) == 120", True),
    ],
)
def test_what_fits(text: str, expected: bool | None):
    statics = {"rated_load_kg": 630.0, "rated": 630.0}
    world = World({name: (value, 0) for name, value in VALUES.items()}, statics=statics)
    if expected is None:
        with pytest.raises(ExpressionError, match="W/V cannot be compared with A"):
            compile_condition(text, FIELDS, FAULTS, params=PARAMS)
        return
    assert compile_condition(text, FIELDS, FAULTS, params=PARAMS).evaluate(world) is expected


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("speed_mps > 3s", 13, "m/s cannot be compared with s"),
        ("3s < speed_mps", 6, "s cannot be compared with m/s"),
        ("temp_c > 80W", 10, "°C cannot be compared with W"),
        ("leakage_ma > 1A", 14, "mA cannot be compared with A"),
        ("leakage_ma > current_a", 14, "mA cannot be compared with A"),
        ("duration_s > run_hours", 14, "s cannot be compared with h"),
        ("power_w + temp_c > 1", 11, "W cannot be added to °C"),
        ("power_w - temp_c > 1", 11, "°C cannot be subtracted from W"),
        ("power_w * duration_s > 5kWh", 24, "W·s cannot be compared with kWh"),
        ("trips > 3s", 9, "a number without a unit cannot be compared with s"),
        ("load_kg > device.speed_mps", 11, "kg cannot be compared with m/s"),
        ("temp_c > hold", 10, "°C cannot be compared with s"),
        ("temp_c > word", 10, "a number cannot be compared with a text"),
        ("rate(run_hours, 5m) > 1mps", 23, "h/s cannot be compared with m/s"),
        ("rate(trips, 5m) > 1mps", 19, "1/s cannot be compared with m/s"),
        ("coalesce(temp_c, 5W) > 1", 18, "W cannot stand for °C"),
        ("temp_c > 80F", 12, "unknown unit 'F'"),
        ("power_w > 80kwh", 13, "did you mean 'kWh'?"),
    ],
)
def test_what_does_not_fit(text: str, column: int, reason: str):
    with pytest.raises(ExpressionError) as caught:
        compile_condition(text, FIELDS, FAULTS, params=PARAMS)
    assert reason in caught.value.reason
    assert caught.value.column == column
