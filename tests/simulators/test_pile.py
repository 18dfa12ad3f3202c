import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators import pile
from simulators.daytime import Pace, hour_of
from simulators.pile import Pile

NOON_S = 1_766_289_600.0
ORDER = ("idle", "plugged", "charging", "floating", "full")

piles = st.tuples(st.integers(1, 16), st.floats(0.3, 10), st.booleans()).map(
    lambda p: Pile(ports=p[0], pace=Pace(sessions_per_day=p[1], by_hour=p[2]))
)


def said(state) -> tuple[Any, ...]:
    return pile.snapshot(state, 0, 0).ports


@given(piles, st.integers(0, 2**32), st.lists(st.integers(1, 7_200), max_size=40))
@settings(max_examples=40, deadline=None)
def test_ports_never_contradict_themselves(config, seed, steps):
    rng = random.Random(seed)
    state = pile.start(config, NOON_S, rng)
    energy: dict[str, float] = {}
    for dt_s in steps:
        state = pile.step(state, dt_s, rng)
        told = said(state)
        assert [port.port for port in told] == list(range(1, config.ports + 1))
        for port, truth in zip(told, state.ports, strict=True):
            assert (port.power_w > 0) == (port.state in ("charging", "floating"))
            assert port.current_a == pytest.approx(port.power_w / port.voltage_v, abs=1e-2)
            assert (port.order is None) == (port.state in ("idle", "plugged"))
            assert (port.energy_kwh is None) == (port.duration_s is None) == (port.order is None)
            assert port.ambient_c - 0.1 <= port.temp_c < port.ambient_c + 30
            if truth.session:
                assert port.energy_kwh >= energy.get(port.order, 0.0)
                energy[port.order] = port.energy_kwh
                assert port.energy_kwh <= 1.3
                if port.state == "floating":
                    assert port.power_w <= 0.2 * truth.session.power_w


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_a_session_is_as_long_and_as_rich_as_real_ones(seed):
    session = pile._draw_session("1", random.Random(seed))
    assert 120 <= session.power_w <= 400
    assert 2 <= (session.charging_s + pile.FLOAT_S) / 3_600 <= 9
    full = pile.Port("full", 0.0, 1.0, session, 0.0)
    assert 0.3 <= pile.energy_kwh(full) <= 1.25
    assert pile.duration_s(full) == pytest.approx(session.charging_s + pile.FLOAT_S)


def test_phases_follow_one_another_and_energy_is_the_integral_of_power():
    rng = random.Random(5)
    state = pile.start(Pile(ports=4, pace=Pace(sessions_per_day=20, by_hour=False)), NOON_S, rng)
    seen = set()
    integral = [pile.energy_kwh(port) for port in state.ports]
    for _ in range(86_400 // 5):
        before = state
        state = pile.step(state, 5, rng)
        for i, (was, now) in enumerate(zip(before.ports, state.ports, strict=True)):
            seen.add(now.phase)
            assert (ORDER.index(now.phase) - ORDER.index(was.phase)) % len(ORDER) in (0, 1)
            integral[i] += (pile.power_w(was) + pile.power_w(now)) / 2 * 5 / 3_600_000
            if now.phase == "idle":
                integral[i] = 0.0
            assert pile.energy_kwh(now) == pytest.approx(integral[i], rel=0.01, abs=0.002)
    assert seen == set(ORDER)


def test_only_the_ports_asked_for_are_reported():
    state = pile.start(Pile(), NOON_S, random.Random(1))
    told = pile.snapshot(state, 0, 0, {3, 7})
    assert [port.port for port in told.ports] == [3, 7]
    assert told.voltage_v is None
    assert pile.snapshot(state, 0, 0).voltage_v is not None


def test_bikes_come_in_the_evening():
    rng = random.Random(2)
    clock_s, hours = NOON_S, []
    for _ in range(400):
        clock_s += pile._next_plug_s(Pile(), clock_s, rng)
        hours.append(hour_of(clock_s))
    assert sum(18 <= hour < 23 for hour in hours) / len(hours) > 0.55


def test_a_faulty_port_is_plugged_and_cools_after_it_is_unplugged():
    rng = random.Random(1)
    state = pile.step(pile.plug(pile.start(Pile(), NOON_S, rng), 4), 60, rng)
    port = said(state)[3]
    assert (port.state, port.duration_s) == ("charging", 60)
    assert port.power_w == pytest.approx(320, rel=0.02)
    hot = pile.unplug(state, 4, rng, temp_c=92.0)
    assert said(hot)[3].temp_c == pytest.approx(92.0)
    assert said(pile.step(hot, 600, rng))[3].temp_c < 65
