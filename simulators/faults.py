"""Faults on demand, laid over a device: what really is wrong, and how it looks on the wire (DOMAIN sections 3 and 4).

A fault is one entry of the registry. `begin` and `end` change the device itself (a car stops, a plug is pulled), the
overlay changes what its snapshots say, cues are the events it sends. All are pure; times are seconds since the fault
began, on the clock of the stamps, because rules wait on that clock too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from core.errors import SettingsError
from core.faults import TABLES
from core.kinds.charger import ChargerTelemetry, PortTelemetry
from core.kinds.elevator import ElevatorTelemetry
from simulators import lift, pile
from simulators.lift import LiftState
from simulators.pile import PileState

CODE: Final = "code:"
"""Prefix of the one fault with an argument: `code:5`."""

OVERHEAT_C, OVERHEAT_RAMP_S = 92.0, 20.0
ENTRAPMENT_S: Final = 600.0

Overlay = Callable[[Any, float, int], Any]
"""(snapshot, seconds since the fault began, port or 0) -> the snapshot that is sent. `Any`: kinds differ by entry."""
Hook = Callable[[Any, int, random.Random], Any]
"""(state, port or 0, rng) -> state."""


class Cue(NamedTuple):
    """An event sent exactly once: raised `at_s` after the beginning, cleared when the fault ends."""

    at_s: float
    table: str
    code: str


def _same(snapshot: Any, elapsed_s: float, port: int) -> Any:
    return snapshot


def _keep(state: Any, port: int, rng: random.Random) -> Any:
    return state


class SimulatedFault(NamedTuple):
    """One entry of the registry."""

    name: str
    kinds: tuple[str, ...]
    en: str
    """What happens, for help texts."""
    truth: str | None
    """The fault of `core.faults.FAULTS` that really is there; None: the device only falls silent."""
    overlay: Overlay = _same
    cues: tuple[Cue, ...] = ()
    begin: Hook = _keep
    end: Hook = _keep
    lasts_s: float | None = None
    """Default duration; None: to the end of the run."""
    on_port: bool = False
    """Sits on one port; without one given, the plan picks one."""
    silent: bool = False
    offline: bool = False
    """The broker publishes the device's last will."""


def find(name: str) -> SimulatedFault:
    """The fault of that name, `code:N` included. SettingsError lists what is known."""
    if name.startswith(CODE):
        return _code(name.removeprefix(CODE))
    if name not in FAULTS:
        raise SettingsError(f"unknown fault '{name}'; known: {', '.join(known())}")
    return FAULTS[name]


def known() -> tuple[str, ...]:
    """Names for help texts and errors."""
    return (*FAULTS, CODE + "N")


# --- lift ---------------------------------------------------------------------------------------------------------


def _between_floors(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    below_top_mm = -900.0 if (snapshot.floor or 1) > 1 else 900.0
    return snapshot.model_copy(update={"door_zone": False, "levelling_mm": below_top_mm})


def _overtravel(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
    above_top = {"direction": "up", "door_zone": False, "levelling_mm": 260.0, "safety_circuit": "open"}
    return snapshot.model_copy(update=above_top)


def _halt_occupied(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.halt(state, occupied=True)


def _halt_empty(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.halt(state, occupied=False)


def _halt_at_top(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.halt(state, occupied=False, floor=state.lift.floors)


def _release(state: LiftState, port: int, rng: random.Random) -> LiftState:
    return lift.release(state)


_MODE_OF_CODE: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
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


def _code(code: str) -> SimulatedFault:
    codes = TABLES["gbt24476"].codes
    if code not in codes:
        raise SettingsError(f"'{CODE}{code}': gbt24476 has no code '{code}'; it has {', '.join(codes)}")
    changes = _MODE_OF_CODE.get(code, {})

    def overlay(snapshot: ElevatorTelemetry, elapsed_s: float, port: int) -> ElevatorTelemetry:
        return snapshot.model_copy(update=changes) if changes else snapshot

    cues = (Cue(0, "gbt24476", code),)
    return SimulatedFault(CODE + code, ("elevator",), f"sends code {code}", codes[code], overlay, cues)


# --- charging pile ------------------------------------------------------------------------------------------------


def _on_port(
    snapshot: ChargerTelemetry, number: int, change: Callable[[PortTelemetry], dict[str, Any]]
) -> ChargerTelemetry:
    ports = tuple(p.model_copy(update=change(p)) if p.port == number else p for p in snapshot.ports)
    return snapshot.model_copy(update={"ports": ports})


def _overheat(snapshot: ChargerTelemetry, elapsed_s: float, port: int) -> ChargerTelemetry:
    def hotter(telemetry: PortTelemetry) -> dict[str, Any]:
        base_c = telemetry.temp_c or 0.0
        risen = min(1.0, elapsed_s / OVERHEAT_RAMP_S)
        return {"temp_c": round(max(base_c, base_c + (OVERHEAT_C - base_c) * risen), 1)}

    return _on_port(snapshot, port, hotter)


def _smoke(snapshot: ChargerTelemetry, elapsed_s: float, port: int) -> ChargerTelemetry:
    if snapshot.ambient_c is None:
        return snapshot
    return snapshot.model_copy(update={"ambient_c": round(snapshot.ambient_c + min(15.0, elapsed_s / 4), 1)})


def _welded(snapshot: ChargerTelemetry, elapsed_s: float, port: int) -> ChargerTelemetry:
    return _on_port(snapshot, port, lambda telemetry: {"state": "fault"})


def _plug(state: PileState, port: int, rng: random.Random) -> PileState:
    return pile.plug(state, port)


def _unplug(state: PileState, port: int, rng: random.Random) -> PileState:
    return pile.unplug(state, port, rng)


def _unplug_hot(state: PileState, port: int, rng: random.Random) -> PileState:
    return pile.unplug(state, port, rng, temp_c=OVERHEAT_C)


# --- registry -----------------------------------------------------------------------------------------------------

_LIFT, _PILE = ("elevator",), ("charger",)

FAULTS: Final = {
    fault.name: fault
    for fault in (
        SimulatedFault(
            "entrapment",
            _LIFT,
            "car stops between floors with a person inside, who presses the alarm button",
            "entrapment",
            _between_floors,
            (Cue(2, "gbt24476", "4"), Cue(8, "gbt24476", "90")),
            _halt_occupied,
            _release,
            ENTRAPMENT_S,
        ),
        SimulatedFault(
            "entrapment-level",
            _LIFT,
            "car is level, its door stays closed on a person",
            "entrapment",
            begin=_halt_occupied,
            end=_release,
            lasts_s=ENTRAPMENT_S,
        ),
        SimulatedFault(
            "stopped",
            _LIFT,
            "empty car stops between floors",
            "stopped_outside_door_zone",
            _between_floors,
            begin=_halt_empty,
            end=_release,
        ),
        SimulatedFault(
            "overtravel",
            _LIFT,
            "empty car runs past the top floor",
            "overtravel_top",
            _overtravel,
            begin=_halt_at_top,
            end=_release,
        ),
        SimulatedFault(
            "overheat",
            _PILE,
            "a charging port gets hotter than 85 degC within 20 s",
            "over_temperature",
            _overheat,
            begin=_plug,
            end=_unplug_hot,
            on_port=True,
        ),
        SimulatedFault("smoke", _PILE, "smoke alarm of the pile", "smoke", _smoke, (Cue(0, "dny", "alarm-4"),)),
        SimulatedFault(
            "relay-welded",
            _PILE,
            "a port's relay is welded and power flows",
            "relay_welded",
            _welded,
            (Cue(0, "dny", "port-9"),),
            _plug,
            _unplug,
            on_port=True,
        ),
        SimulatedFault("silence", _LIFT + _PILE, "device stops reporting", None, silent=True),
        SimulatedFault(
            "offline", _LIFT + _PILE, "device's last will says offline, then silence", None, silent=True, offline=True
        ),
    )
}
