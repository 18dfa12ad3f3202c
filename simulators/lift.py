"""A virtual retrofitted lift (DOMAIN sections 2 and 7): pure, exact for any step, nothing but a seed decides.

A lift goes through phases of known length; position and speed are closed formulas of the time within the phase. So a
step of one minute gives the same as six hundred steps of 0.1 s, and a state cannot contradict itself: whether the car
moves, where its door is and what the brake does all follow from the phase.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from core.kinds.elevator import ElevatorTelemetry
from simulators.daytime import DOWNWARD, LIFT_CALLS, Pace, outdoor_c, share, towards, wait_s
from simulators.device import WHOLE, Device, Driver, Watch
from simulators.motion import Run, plan_run

MOVING_REPORT_S: Final = 1.0
REST_REPORT_S: Final = 30.0
CREEP_M, CREEP_S = 0.03, 1.0
"""Levelling: the last centimetres, slowly."""
DOOR_ZONE_M: Final = 0.15
MOTOR_RISE_C, MOTOR_SETTLE_S = 35.0, 900.0
PERSON_KG: Final = (45.0, 85.0)
REVERSING_S: Final = 1.0
"""A door that meets something turns back at once."""


class Phase(StrEnum):
    """What the lift is doing. Only TRAVELLING and LEVELLING move the car."""

    IDLE = "idle"
    OPENING = "opening"
    LEAVING = "leaving"
    ENTERING = "entering"
    CLOSING = "closing"
    TRAVELLING = "travelling"
    LEVELLING = "levelling"


Door = Literal["closed", "open", "opening", "closing"]
DOORS: Final[dict[Phase, Door]] = {
    Phase.IDLE: "closed",
    Phase.OPENING: "opening",
    Phase.LEAVING: "open",
    Phase.ENTERING: "open",
    Phase.CLOSING: "closing",
    Phase.TRAVELLING: "closed",
    Phase.LEVELLING: "closed",
}


class Lift(NamedTuple):
    """What does not change. Times and accelerations are our own defaults within the ranges of DOMAIN section 2."""

    floors: int = 6
    rated_speed_mps: float = 1.0
    rated_load_kg: float = 630.0
    floor_height_m: float = 2.8
    acceleration_mps2: float = 0.5
    door_s: float = 2.5
    """To open; and again to close."""
    dwell_s: float = 4.0
    """Door fully open while people walk."""
    pace: Pace = Pace()


class Call(NamedTuple):
    """Somebody wants to go from one floor to another."""

    origin: int
    destination: int
    people: int
    load_kg: float


@dataclass(frozen=True, slots=True)
class LiftState:
    """Everything that changes. Invariant: `0 <= elapsed_s <= length_s`; `target != floor` only while moving."""

    lift: Lift
    clock_s: float
    """Simulated Unix time: decides the hour of the day."""
    phase: Phase
    elapsed_s: float
    length_s: float
    floor: int
    """Where the car stands, or which floor it left."""
    target: int
    call: Call | None
    people: int
    load_kg: float
    levelling_mm: float
    trips: int
    door_cycles: int
    run_s: float
    motor_rise_c: float
    signal_pct: float
    door_reverses: bool = False
    """Something is in the way: the door opens again before it is closed."""
    door_jammed: bool = False
    """The car arrives, and its door stays shut."""

    @property
    def moving(self) -> bool:
        return self.phase in (Phase.TRAVELLING, Phase.LEVELLING)


def start(lift: Lift, clock_s: float, rng: random.Random) -> LiftState:
    """A lift at rest somewhere, some years old, its next call not far."""
    trips = rng.randint(4_000, 90_000)
    floor = rng.randint(1, lift.floors)
    return LiftState(
        lift=lift,
        clock_s=clock_s,
        phase=Phase.IDLE,
        elapsed_s=0.0,
        length_s=_next_call_s(lift, clock_s, rng),
        floor=floor,
        target=floor,
        call=None,
        people=0,
        load_kg=0.0,
        levelling_mm=_levelling_mm(rng),
        trips=trips,
        door_cycles=round(trips * rng.uniform(1.1, 1.3)),
        run_s=trips * rng.uniform(9.0, 14.0),
        motor_rise_c=rng.uniform(5.0, 15.0),
        signal_pct=float(rng.randint(55, 95)),
    )


def step(state: LiftState, dt_s: float, rng: random.Random) -> LiftState:
    """The lift `dt_s` >= 0 simulated seconds later. The rng is used only where a phase ends."""
    while dt_s >= (left_s := state.length_s - state.elapsed_s):
        state = WHEN_OVER[state.phase](_pass(state, left_s), rng)
        dt_s -= left_s
    return _pass(state, dt_s)


def halt(state: LiftState, *, occupied: bool, floor: int | None = None) -> LiftState:
    """The lift at rest with its door closed, deaf to calls, until `release`."""
    at = nearest_floor(state) if floor is None else floor
    return replace(
        state,
        phase=Phase.IDLE,
        elapsed_s=0.0,
        length_s=math.inf,
        floor=at,
        target=at,
        call=None,
        people=1 if occupied else 0,
        load_kg=65.0 if occupied else 0.0,
    )


def release(state: LiftState) -> LiftState:
    """A halted lift opens its door at its floor; who was inside leaves; then it serves again."""
    return replace(state, phase=Phase.OPENING, elapsed_s=0.0, length_s=state.lift.door_s, door_jammed=False)


def send_up(state: LiftState) -> LiftState:
    """One person on the way from the bottom to the top."""
    lift = state.lift
    call = Call(1, lift.floors, 1, 65.0)
    return _go(replace(state, floor=1, target=1, call=call, people=1, load_kg=65.0), lift.floors)


def send_to_a_shut_door(state: LiftState) -> LiftState:
    """One person on the way to the next floor, where the door will not open, until `release`."""
    at = nearest_floor(state)
    target = at + 1 if at < state.lift.floors else at - 1
    call = Call(at, target, 1, 65.0)
    return _go(replace(state, floor=at, target=at, call=call, people=1, load_kg=65.0, door_jammed=True), target)


def with_door_reversing(state: LiftState, *, reversing: bool) -> LiftState:
    """A car that stands where it is, its door opening and closing all the time; or as ever again."""
    if not reversing:
        return replace(state, door_reverses=False)
    at = nearest_floor(state)
    still = replace(state, door_reverses=True, floor=at, target=at, call=None, people=0, load_kg=0.0)
    return _enter(still, Phase.OPENING, REVERSING_S)


def with_calls(state: LiftState, factor: float) -> LiftState:
    """The same lift, called so many times as often."""
    pace = state.lift.pace
    lift = state.lift._replace(pace=pace._replace(calls_per_day=pace.calls_per_day * factor))
    return replace(state, lift=lift)


def position_m(state: LiftState) -> float:
    """Height of the car above floor 1, in metres."""
    lift = state.lift
    if not state.moving:
        return (state.floor - 1) * lift.floor_height_m
    sign = 1 if state.target > state.floor else -1
    if state.phase is Phase.LEVELLING:
        ahead_m = CREEP_M * (1 - state.elapsed_s / state.length_s)
        return (state.target - 1) * lift.floor_height_m - sign * ahead_m
    gone_m = _run(lift, state.floor, state.target).gone_m(state.elapsed_s)
    return (state.floor - 1) * lift.floor_height_m + sign * gone_m


def speed_mps(state: LiftState) -> float:
    """Speed of the car without its sign."""
    if state.phase is Phase.LEVELLING:
        return CREEP_M / CREEP_S
    if state.phase is not Phase.TRAVELLING:
        return 0.0
    return _run(state.lift, state.floor, state.target).speed_at_mps(state.elapsed_s)


def nearest_floor(state: LiftState) -> int:
    """The physical floor, from 1, whose level is closest to the car."""
    return min(state.lift.floors, max(1, round(position_m(state) / state.lift.floor_height_m) + 1))


def snapshot(state: LiftState, ts_ms: int, seq: int) -> ElevatorTelemetry:
    """What the lift's box would send now. A levelling error exists only at rest, so it is absent while moving."""
    height_m, speed, floor = position_m(state), speed_mps(state), nearest_floor(state)
    moving, door = state.moving, DOORS[state.phase]
    direction: Literal["none", "up", "down"] = "up" if state.target > state.floor else "down"
    # Guide rail joints and the drive shake the car with its speed; a formula, so that a snapshot needs no rng.
    shake = speed * (1 + 0.3 * math.sin(height_m * 7))
    return ElevatorTelemetry(
        ts=ts_ms,
        seq=seq,
        service_mode="normal",
        moving=moving,
        direction=direction if moving else "none",
        door=door,
        door_zone=abs(height_m - (floor - 1) * state.lift.floor_height_m) <= DOOR_ZONE_M,
        floor=floor,
        floor_label=str(floor),
        occupied=state.people > 0,
        trips=state.trips,
        run_hours=round(state.run_s / 3_600, 3),
        door_cycles=state.door_cycles,
        speed_mps=round(speed, 3),
        load_kg=round(state.load_kg, 1),
        levelling_mm=None if moving else round(state.levelling_mm, 1),
        vibration_x_mg=round(2 + 8 * shake, 1),
        vibration_y_mg=round(2 + 7 * shake, 1),
        vibration_z_mg=round(3 + 12 * shake, 1),
        noise_db=round(38 + 14 * speed + (6 if door in ("opening", "closing") else 0), 1),
        motor_temp_c=round(outdoor_c(state.clock_s) + 4 + state.motor_rise_c, 1),
        shaft_temp_c=round(outdoor_c(state.clock_s) + 2, 1),
        mains=True,
        battery_pct=100.0,
        signal_pct=state.signal_pct,
        brake="released" if moving else "applied",
        safety_circuit="closed",
        door_lock_circuit="closed" if door == "closed" else "open",
    )


def _pass(state: LiftState, dt_s: float) -> LiftState:
    """Time passes within a phase."""
    warm_c = MOTOR_RISE_C if state.moving else 0.0
    return replace(
        state,
        clock_s=state.clock_s + dt_s,
        elapsed_s=state.elapsed_s + dt_s,
        run_s=state.run_s + dt_s if state.moving else state.run_s,
        motor_rise_c=towards(state.motor_rise_c, warm_c, dt_s, MOTOR_SETTLE_S),
    )


def _serve(state: LiftState, rng: random.Random) -> LiftState:
    call = _draw_call(state.lift, state.clock_s, rng)
    return _go(replace(state, call=call), call.origin)


def _level(state: LiftState, rng: random.Random) -> LiftState:
    return _enter(state, Phase.LEVELLING, CREEP_S)


def _arrive(state: LiftState, rng: random.Random) -> LiftState:
    arrived = replace(state, floor=state.target, trips=state.trips + 1, levelling_mm=_levelling_mm(rng))
    if state.door_jammed:
        return _enter(replace(arrived, call=None), Phase.IDLE, math.inf)
    return _enter(arrived, Phase.OPENING, state.lift.door_s)


def _dwell(state: LiftState, rng: random.Random) -> LiftState:
    if state.door_reverses:
        return _enter(state, Phase.LEAVING, REVERSING_S)
    boarding = state.call is not None and not state.people
    return _enter(state, Phase.ENTERING if boarding else Phase.LEAVING, state.lift.dwell_s * rng.uniform(0.7, 1.5))


def _leave(state: LiftState, rng: random.Random) -> LiftState:
    closing_s = REVERSING_S if state.door_reverses else state.lift.door_s
    return _enter(replace(state, people=0, load_kg=0.0, call=None), Phase.CLOSING, closing_s)


def _board(state: LiftState, rng: random.Random) -> LiftState:
    assert state.call is not None  # only a call leads to ENTERING
    aboard = replace(state, people=state.call.people, load_kg=state.call.load_kg)
    return _enter(aboard, Phase.CLOSING, state.lift.door_s)


def _depart(state: LiftState, rng: random.Random) -> LiftState:
    if state.door_reverses:
        return _enter(state, Phase.OPENING, REVERSING_S)
    closed = replace(state, door_cycles=state.door_cycles + 1)
    if state.call is not None:
        return _go(closed, state.call.destination)
    return _enter(closed, Phase.IDLE, _next_call_s(state.lift, state.clock_s, rng))


WHEN_OVER: Final[dict[Phase, Callable[[LiftState, random.Random], LiftState]]] = {
    Phase.IDLE: _serve,  # -> TRAVELLING, or OPENING where the car already is
    Phase.TRAVELLING: _level,  # -> LEVELLING
    Phase.LEVELLING: _arrive,  # -> OPENING
    Phase.OPENING: _dwell,  # -> ENTERING at the caller's floor, LEAVING elsewhere
    Phase.ENTERING: _board,  # -> CLOSING
    Phase.LEAVING: _leave,  # -> CLOSING
    Phase.CLOSING: _depart,  # -> TRAVELLING with somebody aboard, else IDLE
}
"""The state machine: what follows a phase that has run its length."""


def _enter(state: LiftState, phase: Phase, length_s: float) -> LiftState:
    return replace(state, phase=phase, elapsed_s=0.0, length_s=length_s)


def _go(state: LiftState, target: int) -> LiftState:
    """Drive to a floor, or just open where the car already is."""
    if target == state.floor:
        return _enter(state, Phase.OPENING, state.lift.door_s)
    run = _run(state.lift, state.floor, target)
    return _enter(replace(state, target=target), Phase.TRAVELLING, run.length_s)


def _run(lift: Lift, floor: int, target: int) -> Run:
    """The run between two floors, up to where levelling begins."""
    distance_m = abs(target - floor) * lift.floor_height_m - CREEP_M
    return plan_run(distance_m, lift.rated_speed_mps, lift.acceleration_mps2)


def _draw_call(lift: Lift, clock_s: float, rng: random.Random) -> Call:
    """Mostly between the street and a home; now and then between neighbours."""
    people = rng.choices((1, 2, 3), (70, 24, 6))[0]
    load_kg = sum(rng.uniform(*PERSON_KG) for _ in range(people))
    home = rng.randint(2, lift.floors)
    if lift.floors > 2 and rng.random() < 0.05:
        other = rng.choice([floor for floor in range(2, lift.floors + 1) if floor != home])
        return Call(home, other, people, load_kg)
    down = rng.random() < share(DOWNWARD, clock_s)
    return Call(home, 1, people, load_kg) if down else Call(1, home, people, load_kg)


def _next_call_s(lift: Lift, clock_s: float, rng: random.Random) -> float:
    return wait_s(clock_s, lift.pace.calls_per_day, LIFT_CALLS if lift.pace.by_hour else None, rng)


def _levelling_mm(rng: random.Random) -> float:
    """Stopping accuracy +-10 mm (DOMAIN section 2)."""
    return max(-10.0, min(10.0, rng.gauss(0.0, 3.0)))


def _start_device(device: Device, pace: Pace, clock_s: float, rng: random.Random) -> LiftState:
    statics = device.statics
    lift = Lift(
        floors=int(statics["floors"]),
        rated_speed_mps=float(statics["rated_speed_mps"]),
        rated_load_kg=float(statics["rated_load_kg"]),
        pace=pace,
    )
    return start(lift, clock_s, rng)


def _watches(state: LiftState) -> Sequence[Watch]:
    return (Watch(WHOLE, state.phase, MOVING_REPORT_S if state.moving else REST_REPORT_S),)


def _snapshot_parts(state: LiftState, ts_ms: int, seq: int, parts: Collection[int]) -> ElevatorTelemetry:
    return snapshot(state, ts_ms, seq)


DRIVER: Final = Driver("lift-sim-1.0", _start_device, step, _watches, _snapshot_parts)
