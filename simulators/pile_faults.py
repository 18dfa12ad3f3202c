"""Faults of charging piles on demand (DOMAIN section 4)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from core.kinds.charger import ChargerTelemetry, PortTelemetry
from simulators import pile
from simulators.fault import PILE, Cue, Overlay, SimulatedFault, changed
from simulators.pile import PileState

OVERHEAT_C, OVERHEAT_RAMP_S = 92.0, 20.0
HEATING_C, HEATING_S = 45.0, 600.0
STEP_AFTER_S: Final = 900.0
DAY_S: Final = 86_400.0


def _on_port(
    snapshot: ChargerTelemetry, number: int, change: Callable[[PortTelemetry], dict[str, Any]]
) -> ChargerTelemetry:
    ports = tuple(p.model_copy(update=change(p)) if p.port == number else p for p in snapshot.ports)
    return snapshot.model_copy(update={"ports": ports})


def _port(**values: Any) -> Overlay:
    """An overlay that sets fields of the port."""
    return lambda snapshot, elapsed_s, port: _on_port(snapshot, port, lambda telemetry: values)


def _warm(most_c: float, ramp_s: float, *, above: bool = False) -> Overlay:
    """The port rises to `most_c`, or by so much, within the ramp."""

    def overlay(snapshot: ChargerTelemetry, elapsed_s: float, port: int) -> ChargerTelemetry:
        def hotter(telemetry: PortTelemetry) -> dict[str, Any]:
            base_c = telemetry.temp_c or 0.0
            risen = min(1.0, elapsed_s / ramp_s)
            return {"temp_c": round(base_c + (most_c if above else max(0.0, most_c - base_c)) * risen, 1)}

        return _on_port(snapshot, port, hotter)

    return overlay


def _smoke(snapshot: ChargerTelemetry, elapsed_s: float, port: int) -> ChargerTelemetry:
    if snapshot.ambient_c is None:
        return snapshot
    return snapshot.model_copy(update={"ambient_c": round(snapshot.ambient_c + min(15.0, elapsed_s / 4), 1)})


def _more_power(snapshot: ChargerTelemetry, elapsed_s: float, port: int) -> ChargerTelemetry:
    if elapsed_s < STEP_AFTER_S:
        return snapshot
    return _on_port(snapshot, port, lambda telemetry: {"power_w": round((telemetry.power_w or 0.0) + 150, 1)})


def _too_long(snapshot: ChargerTelemetry, elapsed_s: float, port: int) -> ChargerTelemetry:
    return _on_port(snapshot, port, lambda telemetry: {"duration_s": int(35_700 + elapsed_s)})


def _leaks_more(snapshot: ChargerTelemetry, elapsed_s: float, port: int) -> ChargerTelemetry:
    if snapshot.leakage_ma is None:
        return snapshot
    return snapshot.model_copy(update={"leakage_ma": round(snapshot.leakage_ma + 15 * min(1, elapsed_s / DAY_S), 1)})


def _plug(state: PileState, port: int, rng: random.Random) -> PileState:
    return pile.plug(state, port)


def _plug_small(state: PileState, port: int, rng: random.Random) -> PileState:
    return pile.plug(state, port, power_w=150.0)


def _unplug(state: PileState, port: int, rng: random.Random) -> PileState:
    return pile.unplug(state, port, rng)


def _unplug_hot(state: PileState, port: int, rng: random.Random) -> PileState:
    return pile.unplug(state, port, rng, temp_c=OVERHEAT_C)


def _on_a_port(
    name: str, en: str, truth: str | None, overlay: Overlay, group: str, told_s: float, **more: Any
) -> SimulatedFault:
    hooks = {"begin": _plug, "end": _unplug} | more
    return SimulatedFault(name, PILE, en, truth, overlay, on_port=True, group=group, told_s=told_s, **hooks)


def _of_the_pile(
    name: str, en: str, truth: str | None, overlay: Overlay, group: str, told_s: float, **more: Any
) -> SimulatedFault:
    return SimulatedFault(name, PILE, en, truth, overlay, group=group, told_s=told_s, **more)


PILE_FAULTS: Final = (
    _on_a_port(
        "overheat",
        "a charging port gets hotter than 85 degC within 20 s",
        "over_temperature",
        _warm(OVERHEAT_C, OVERHEAT_RAMP_S),
        "heat",
        60,
        end=_unplug_hot,
    ),
    _on_a_port(
        "heating",
        "a bad contact: the port gets 45 degC warmer within 10 min",
        "bad_contact",
        _warm(HEATING_C, HEATING_S, above=True),
        "heat",
        660,
    ),
    _of_the_pile("smoke", "smoke alarm of the pile", "smoke", _smoke, "fire", 1, cues=(Cue(0, "dny", "alarm-4"),)),
    _on_a_port(
        "relay-welded",
        "a port's relay is welded and power flows",
        "relay_welded",
        _port(state="fault"),
        "relay-welded",
        10,
        cues=(Cue(0, "dny", "port-9"),),
    ),
    _on_a_port(
        "power-while-idle",
        "the port says idle, and power flows",
        "relay_welded",
        _port(state="idle", power_w=150.0, order=None, energy_kwh=None, duration_s=None),
        "relay-welded",
        75,
    ),
    _on_a_port(
        "power-after-full",
        "the battery is full, and power flows",
        None,
        _port(state="full", power_w=60.0),
        "charging",
        75,
        also=("occupied",),
    ),
    _on_a_port(
        "power-step",
        "after 15 min of charging the power rises by 150 W",
        None,
        _more_power,
        "charging",
        STEP_AFTER_S + 45,
        begin=_plug_small,
    ),
    _on_a_port(
        "overload", "a port gives 2 500 W", "overload", _port(power_w=2_500.0), "overload", 20, also=("charging",)
    ),
    _on_a_port(
        "suspicious-load",
        "a port gives 1 000 W",
        "overload",
        _port(power_w=1_000.0),
        "overload",
        45,
        also=("charging",),
    ),
    _on_a_port("too-long", "a session goes on beyond ten hours", None, _too_long, "charging", 330),
    _on_a_port("occupied", "a full bike stays", None, _port(state="full", power_w=0.0), "occupied", 7_230),
    _on_a_port(
        "port-fault",
        "bad contact: the port is out of order",
        "bad_contact",
        _port(state="fault", power_w=0.0),
        "port-fault",
        2,
        cues=(Cue(0, "dny", "port-8"),),
    ),
    _on_a_port(
        "temperature-lost", "the port's temperature sensor says nothing more", None, _port(temp_c=None), "data", 1_300
    ),
    _of_the_pile("leakage", "45 mA leak", "leakage", changed(leakage_ma=45.0), "leakage", 10),
    _of_the_pile("over-voltage", "285 V", "over_voltage", changed(voltage_v=285.0), "voltage", 20),
    _of_the_pile("under-voltage", "90 V", "under_voltage", changed(voltage_v=90.0), "voltage", 20),
    _of_the_pile(
        "pile-mains-lost",
        "the pile's mains fail",
        "pile_mains_lost",
        changed(mains=False, voltage_v=0.0),
        "mains",
        2,
        cues=(Cue(0, "dny", "alarm-1"),),
    ),
    _of_the_pile("water", "water in the pile", "water", changed(), "water", 1, cues=(Cue(0, "dny", "alarm-2"),)),
    _of_the_pile("weak-pile-signal", "weak signal", None, changed(signal_pct=12.0), "signal", 660),
    _of_the_pile("leakage-grows", "leakage grows by 15 mA within a day", None, _leaks_more, "leakage-trend", 3 * DAY_S),
)
