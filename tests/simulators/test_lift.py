import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.kinds.elevator import ElevatorTelemetry
from simulators import lift
from simulators.daytime import Pace
from simulators.lift import Lift, LiftState, Phase

NOON_S = 1_766_289_600.0  # 2025-12-21 12:00 in Shanghai

paces = st.tuples(st.floats(60, 20_000), st.booleans()).map(lambda p: Pace(calls_per_day=p[0], by_hour=p[1]))
lifts = st.tuples(st.integers(2, 7), st.floats(0.4, 1.0), paces).map(
    lambda p: Lift(floors=p[0], rated_speed_mps=p[1], pace=p[2])
)
seeds = st.integers(0, 2**32)
steps_s = st.lists(st.integers(1, 30_000).map(lambda ms: ms / 1_000), max_size=60)


def check(state: LiftState, told: ElevatorTelemetry) -> None:
    """What can never be true of a healthy lift."""
    config = state.lift
    assert 0 <= state.elapsed_s <= state.length_s
    assert told.speed_mps is not None
    assert told.floor is not None
    if told.moving:
        assert told.door == "closed"
        assert told.direction in ("up", "down")
        assert told.levelling_mm is None
    else:
        assert told.speed_mps == 0
        assert told.direction == "none"
        assert told.door_zone
        assert told.levelling_mm is not None
        assert abs(told.levelling_mm) <= 10
    if told.door != "closed":
        assert told.door_zone
        assert not told.moving
    assert (told.brake == "released") == told.moving
    assert (told.door_lock_circuit == "closed") == (told.door == "closed")
    assert told.safety_circuit == "closed"
    assert told.occupied == (told.load_kg != 0)
    assert 0 <= told.speed_mps <= config.rated_speed_mps + 1e-3
    assert 1 <= told.floor <= config.floors
    assert -1e-6 <= lift.position_m(state) <= (config.floors - 1) * config.floor_height_m + 1e-6


@given(lifts, seeds, steps_s)
@settings(max_examples=60, deadline=None)
def test_never_contradicts_itself(config, seed, steps):
    rng = random.Random(seed)
    state = lift.start(config, NOON_S, rng)
    for seq, dt_s in enumerate(steps):
        before = state
        state = lift.step(state, dt_s, rng)
        check(state, lift.snapshot(state, 1_766_289_600_000, seq))
        assert state.trips >= before.trips
        assert state.door_cycles >= before.door_cycles
        assert state.run_s >= before.run_s
        assert state.clock_s == pytest.approx(before.clock_s + dt_s)


@given(lifts, seeds, steps_s)
@settings(max_examples=40, deadline=None)
def test_one_long_step_is_many_short_ones(config, seed, steps):
    rng, same = random.Random(seed), random.Random(seed)
    short = long = lift.start(config, NOON_S, rng)
    lift.start(config, NOON_S, same)
    for dt_s in steps:
        short = lift.step(short, dt_s, rng)
    long = lift.step(long, sum(steps), same)
    assert lift.position_m(short) == pytest.approx(lift.position_m(long), abs=1e-3)
    assert (short.trips, short.door_cycles, short.people) == (long.trips, long.door_cycles, long.people)
    assert short.run_s == pytest.approx(long.run_s, abs=1e-3)


def test_a_busy_minute_moves_smoothly_through_every_phase():
    config = Lift(pace=Pace(calls_per_day=20_000, by_hour=False))
    rng = random.Random(1)
    state = lift.start(config, NOON_S, rng)
    seen, occupied = set(), set()
    for _ in range(3_000):
        before = state
        state = lift.step(state, 0.1, rng)
        check(state, lift.snapshot(state, 0, 0))
        moved_m = abs(lift.position_m(state) - lift.position_m(before))
        assert moved_m <= 0.1 * config.rated_speed_mps + 1e-6
        seen.add(state.phase)
        occupied.add(state.people > 0)
    assert seen == set(Phase)
    assert occupied == {True, False}
    assert state.trips > 2


def test_trips_of_a_day_are_those_of_a_real_stair():
    for seed in range(5):
        rng = random.Random(seed)
        first = lift.start(Lift(), NOON_S, rng)
        assert 60 <= lift.step(first, 86_400, rng).trips - first.trips <= 200


def test_people_go_down_in_the_morning_and_up_in_the_evening():
    def downward(hour):
        rng = random.Random(7)
        clock_s = NOON_S + (hour - 12) * 3_600
        calls = [lift._draw_call(Lift(), clock_s, rng) for _ in range(400)]
        return sum(call.destination == 1 for call in calls) / len(calls)

    assert downward(7) > 0.75
    assert downward(19) < 0.4


def test_a_halted_lift_waits_for_its_release():
    rng = random.Random(3)
    config = Lift(pace=Pace(calls_per_day=20_000, by_hour=False))
    state = lift.start(config, NOON_S, rng)
    while not state.moving:
        state = lift.step(state, 1, rng)
    halted = lift.step(lift.halt(state, occupied=True), 3_600, rng)
    told = lift.snapshot(halted, 0, 0)
    check(halted, told)
    assert (told.occupied, told.door, told.moving) == (True, "closed", False)

    released = lift.step(lift.release(halted), config.door_s + 1, rng)
    assert lift.snapshot(released, 0, 0).door == "open"
    assert released.people == 1
    empty = lift.step(released, 8, rng)
    assert empty.people == 0
