"""Faults of lifts on demand (DOMAIN sections 2 and 3)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from core.kinds.elevator import ElevatorTelemetry
from simulators import lift
from simulators.fault import LIFT, Cue, SimulatedFault, changed
from simulators.lift import LiftState

ENTRAPMENT_S: Final = 600.0
RIDE_S: Final = 1.0
"""Whoever is trapped was on the way: so long the car still moves."""
DAY_S: Final = 86_400.0


def _between_floors(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    if elapsed_s < RIDE_S:
        riding = {"moving": True, "direction": "up", "brake": "released", "speed_mps": 0.3, "levelling_mm": None}
        return snapshot.model_copy(update={**riding, "door_zone": False})
    below_top_mm = -900.0 if (snapshot.floor or 1) > 1 else 900.0
    return snapshot.model_copy(update={"door_zone": False, "levelling_mm": below_top_mm})


def _overtravel(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    above_top = {"direction": "up", "door_zone": False, "levelling_mm": 260.0, "safety_circuit": "open"}
    return snapshot.model_copy(update=above_top)


def _overtravel_bottom(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    below = {"direction": "down", "door_zone": False, "levelling_mm": -260.0, "safety_circuit": "open"}
    return snapshot.model_copy(update=below)


def _too_fast(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    return snapshot.model_copy(update={"speed_mps": round((snapshot.speed_mps or 0.0) * 1.4, 3)})


def _open_on_the_way(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    opened = {"door": "open", "door_lock_circuit": "open"}
    return snapshot.model_copy(update=opened) if snapshot.moving else snapshot


def _circuit_lost(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    return snapshot.model_copy(update={"safety_circuit": "open"}) if snapshot.moving else snapshot


def _drifts(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    if snapshot.levelling_mm is None:
        return snapshot
    return snapshot.model_copy(
        update={"levelling_mm": round(snapshot.levelling_mm + 18 * min(1, elapsed_s / DAY_S), 1)}
    )


def _works_harder(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    return snapshot.model_copy(update={"door_cycles": (snapshot.door_cycles or 0) + int(elapsed_s / DAY_S * 150)})


def _warmer(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    rise_c = 40 * min(1.0, elapsed_s / 21_600)
    return snapshot.model_copy(update={"motor_temp_c": round((snapshot.motor_temp_c or 0.0) + rise_c, 1)})


def _shakes(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    factor = 1 + 2 * min(1.0, elapsed_s / DAY_S)
    names = ("vibration_x_mg", "vibration_y_mg", "vibration_z_mg")
    return snapshot.model_copy(update={name: round(getattr(snapshot, name) * factor, 1) for name in names})


def _halt_occupied(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.halt(state, occupied=True)


def _halt_empty(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.halt(state, occupied=False)


def _halt_at_top(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.halt(state, occupied=False, floor=state.lift.floors)


def _halt_at_bottom(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.halt(state, occupied=False, floor=1)


def _send_to_a_shut_door(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.send_to_a_shut_door(state)


def _send_up(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.send_up(state)


def _reverse(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.with_door_reversing(state, reversing=True)


def _no_longer_reverse(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.with_door_reversing(state, reversing=False)


def _hardly_called(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.with_calls(state, 0.1)


def _called_again(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.with_calls(state, 10.0)


def _release(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.release(state)


MODE_OF_CODE: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "41": {"mains": False},
        "42": {"service_mode": "stopped"},
        "43": {"service_mode": "inspection"},
        "44": {"service_mode": "fire_return"},
        "45": {"service_mode": "fireman"},
        "46": {"service_mode": "emergency_power", "mains": False},
        "47": {"service_mode": "earthquake"},
    }
)
"""What a snapshot says while a code of GB/T 24476 stands; other codes are events only."""

LIFT_FAULTS: Final = (
    SimulatedFault(
        "entrapment",
        LIFT,
        "car stops between floors with a person inside, who presses the alarm button",
        "entrapment",
        _between_floors,
        (Cue(2, "gbt24476", "4"), Cue(8, "gbt24476", "90")),
        _halt_occupied,
        _release,
        ENTRAPMENT_S,
        group="entrapment",
        told_s=10,
    ),
    SimulatedFault(
        "entrapment-unheard",
        LIFT,
        "car stops between floors with a person inside, and nothing but its sensors says so",
        "entrapment",
        _between_floors,
        (),
        _halt_occupied,
        _release,
        ENTRAPMENT_S,
        group="entrapment",
        told_s=30,
    ),
    SimulatedFault(
        "entrapment-level",
        LIFT,
        "car arrives, its door stays closed on a person",
        "entrapment",
        begin=_send_to_a_shut_door,
        end=_release,
        lasts_s=ENTRAPMENT_S,
        group="entrapment",
        told_s=85,
    ),
    SimulatedFault(
        "stopped",
        LIFT,
        "empty car stops between floors",
        "stopped_outside_door_zone",
        _between_floors,
        begin=_halt_empty,
        end=_release,
        group="stopped-between-floors",
        told_s=55,
    ),
    SimulatedFault(
        "overtravel",
        LIFT,
        "empty car runs past the top floor",
        "overtravel_top",
        _overtravel,
        begin=_halt_at_top,
        end=_release,
        group="stopped-between-floors",
        told_s=26,
    ),
    SimulatedFault(
        "overtravel-bottom",
        LIFT,
        "empty car runs past the bottom floor",
        "overtravel_bottom",
        _overtravel_bottom,
        begin=_halt_at_bottom,
        end=_release,
        group="stopped-between-floors",
        told_s=26,
    ),
    SimulatedFault(
        "overspeed",
        LIFT,
        "car runs from bottom to top at 1.4 times its speed",
        "overspeed",
        _too_fast,
        begin=_send_up,
        lasts_s=60,
        group="overspeed",
        told_s=10,
    ),
    SimulatedFault(
        "door-open-moving",
        LIFT,
        "car runs from bottom to top with its door open",
        "door_open_moving",
        _open_on_the_way,
        begin=_send_up,
        lasts_s=60,
        group="door-open-moving",
        told_s=10,
    ),
    SimulatedFault(
        "safety-circuit",
        LIFT,
        "the safety circuit opens on the way",
        "safety_circuit_open",
        _circuit_lost,
        begin=_send_up,
        lasts_s=60,
        group="safety-circuit",
        told_s=10,
    ),
    SimulatedFault(
        "door-held-open",
        LIFT,
        "something keeps the door open",
        "door_closing_fault",
        changed(door="open", door_lock_circuit="open"),
        begin=_halt_empty,
        end=_release,
        lasts_s=1_200,
        group="door",
        told_s=80,
    ),
    SimulatedFault(
        "repeated-door",
        LIFT,
        "the door reverses again and again",
        "repeated_door",
        begin=_reverse,
        end=_no_longer_reverse,
        lasts_s=300,
        group="door",
        told_s=40,
    ),
    SimulatedFault(
        "mains-lost",
        LIFT,
        "the mains fail; the car stands, empty",
        "mains_lost",
        changed(mains=False, battery_pct=80.0),
        (Cue(0, "gbt24476", "41"),),
        _halt_empty,
        _release,
        1_800,
        group="mains",
        told_s=2,
    ),
    SimulatedFault(
        "inspection",
        LIFT,
        "somebody leaves the inspection switch on",
        "inspection_mode",
        changed(service_mode="inspection"),
        begin=_halt_empty,
        end=_release,
        group="out-of-service",
        told_s=14_500,
        also=("usage",),
    ),
    SimulatedFault(
        "out-of-service",
        LIFT,
        "the lift is out of service",
        "out_of_service",
        changed(service_mode="stopped"),
        begin=_halt_empty,
        end=_release,
        group="out-of-service",
        told_s=86_500,
        also=("usage",),
    ),
    SimulatedFault(
        "presence-lost",
        LIFT,
        "the presence sensor says nothing more",
        None,
        changed(occupied=None),
        group="presence",
        told_s=1_000,
    ),
    SimulatedFault(
        "presence-stuck",
        LIFT,
        "the presence sensor sees nobody, ever",
        None,
        changed(occupied=False),
        group="presence",
        told_s=1.3 * DAY_S,
    ),
    SimulatedFault(
        "controller-silent",
        LIFT,
        "the box speaks, the controller does not",
        None,
        changed(moving=None, direction=None, door=None, door_zone=None, floor=None, speed_mps=None),
        group="data",
        told_s=1_000,
    ),
    SimulatedFault("weak-signal", LIFT, "weak signal", None, changed(signal_pct=12.0), group="signal", told_s=660),
    SimulatedFault(
        "battery-low", LIFT, "the backup battery is old", None, changed(battery_pct=15.0), group="battery", told_s=660
    ),
    SimulatedFault(
        "levelling-drift",
        LIFT,
        "the car stops 18 mm too high after a day",
        None,
        _drifts,
        group="levelling",
        told_s=2.5 * DAY_S,
    ),
    SimulatedFault(
        "door-wear",
        LIFT,
        "the door needs two cycles for each trip",
        None,
        _works_harder,
        group="door-wear",
        told_s=2 * DAY_S,
    ),
    SimulatedFault(
        "motor-warm", LIFT, "the motor is 40 degC warmer after 6 h", None, _warmer, group="motor", told_s=DAY_S
    ),
    SimulatedFault(
        "vibration", LIFT, "vibration triples within a day", None, _shakes, group="vibration", told_s=3 * DAY_S
    ),
    SimulatedFault(
        "trips-collapse",
        LIFT,
        "hardly anybody calls the lift any more",
        None,
        begin=_hardly_called,
        end=_called_again,
        group="usage",
        told_s=2.5 * DAY_S,
    ),
)
