"""A virtual charging pile with its ports (DOMAIN section 4): pure, nothing but a seed decides.

A port goes through phases of known length, and power and energy are closed formulas of the time within the session, so
energy is always the integral of the power that was reported, whatever the steps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from core.kinds.charger import ChargerTelemetry, PortTelemetry
from simulators.daytime import (
    CHINA_OFFSET_S,
    DAY_S,
    PLUG_INS,
    Pace,
    hour_of,
    outdoor_c,
    towards,
    wait_s,
)
from simulators.device import WHOLE, Device, Driver, Watch

FULL_REPORT_S: Final = 60.0

TAPER_END: Final = 0.2
"""A charger falls back to floating at this share of its full power."""
FLOAT_SHARE: Final = 0.15
FLOAT_S: Final = 1_800.0
TAPER_LENGTH: Final = -math.log(TAPER_END)
"""Length of the taper in units of its time constant."""

PORT_RISE_C, PORT_SETTLE_S = 22.0, 600.0
"""A port at 400 W is this much warmer than the air around it, after some time."""

PortPhase = Literal["idle", "plugged", "charging", "floating", "full"]


class Battery(NamedTuple):
    """A common e-bike battery: charging power in W, from DOMAIN section 4."""

    least_w: float
    most_w: float
    share: float


BATTERIES: Final = (Battery(120, 180, 0.55), Battery(250, 400, 0.45))
"""48 V lead-acid; 60 and 72 V. The shares are our own default."""


class Pile(NamedTuple):
    """What does not change."""

    ports: int = 10
    pace: Pace = Pace()


class Session(NamedTuple):
    """One charging session: constant power, then an exponential taper, then float."""

    order: str
    power_w: float
    constant_s: float
    taper_s: float
    """Time constant of the taper."""

    @property
    def charging_s(self) -> float:
        return self.constant_s + self.taper_s * TAPER_LENGTH


class Port(NamedTuple):
    """One socket. A session exists from charging until the plug is pulled."""

    phase: PortPhase
    elapsed_s: float
    length_s: float
    session: Session | None
    rise_c: float
    """Port temperature above ambient."""


@dataclass(frozen=True, slots=True)
class PileState:
    """Everything that changes; `ports[0]` is port 1."""

    pile: Pile
    clock_s: float
    """Simulated Unix time: decides the hour of the day and names the orders."""
    ports: tuple[Port, ...]
    signal_pct: float


def start(pile: Pile, clock_s: float, rng: random.Random) -> PileState:
    """A pile as a day of ordinary use leaves it at this hour."""
    yesterday_s = clock_s - DAY_S
    ports = tuple(Port("idle", 0.0, _next_plug_s(pile, yesterday_s, rng), None, 0.0) for _ in range(pile.ports))
    return step(PileState(pile, yesterday_s, ports, float(rng.randint(50, 95))), DAY_S, rng)


def step(state: PileState, dt_s: float, rng: random.Random) -> PileState:
    """The pile `dt_s` >= 0 simulated seconds later. The rng is used only where a phase of a port ends."""
    ports = tuple(
        _step_port(state.pile, port, number, state.clock_s, dt_s, rng) for number, port in enumerate(state.ports, 1)
    )
    return replace(state, clock_s=state.clock_s + dt_s, ports=ports)


def plug(state: PileState, number: int, *, power_w: float = 320.0) -> PileState:
    """A new session of almost ten hours at full power begins on a port, whatever it did before."""
    session = Session(_order(state.clock_s, number), power_w, constant_s=35_000.0, taper_s=300.0)
    return _with_port(state, number, Port("charging", 0.0, session.charging_s, session, state.ports[number - 1].rise_c))


def unplug(state: PileState, number: int, rng: random.Random, *, temp_c: float | None = None) -> PileState:
    """A port becomes idle; it cools down from `temp_c`, or from where it is."""
    rise_c = state.ports[number - 1].rise_c if temp_c is None else temp_c - _ambient_c(state)
    wait = _next_plug_s(state.pile, state.clock_s, rng)
    return _with_port(state, number, Port("idle", 0.0, wait, None, rise_c))


def power_w(port: Port) -> float:
    """Power that flows now, in W."""
    session = port.session
    if session is None or port.phase not in ("charging", "floating"):
        return 0.0
    if port.phase == "floating":
        return session.power_w * FLOAT_SHARE
    return session.power_w * math.exp(-max(0.0, port.elapsed_s - session.constant_s) / session.taper_s)


def energy_kwh(port: Port) -> float:
    """Energy of the session so far: the integral of `power_w`."""
    session = port.session
    if session is None:
        return 0.0
    charging_s = port.elapsed_s if port.phase == "charging" else session.charging_s
    taper = 1 - math.exp(-max(0.0, charging_s - session.constant_s) / session.taper_s)
    at_full_power_s = min(charging_s, session.constant_s) + session.taper_s * taper + _float_s(port) * FLOAT_SHARE
    return session.power_w * at_full_power_s / 3_600_000


def duration_s(port: Port) -> float:
    """Charging time of the session so far, float included."""
    if port.session is None:
        return 0.0
    return port.elapsed_s if port.phase == "charging" else port.session.charging_s + _float_s(port)


def snapshot(state: PileState, ts_ms: int, seq: int, parts: Collection[int] = (WHOLE,)) -> ChargerTelemetry:
    """What the pile would send now: the given ports only, or everything if `parts` holds WHOLE.

    Session fields (order, energy, duration) are absent where there is no session.
    """
    whole = WHOLE in parts
    load_w = sum(power_w(port) for port in state.ports)
    volts = round(228.0 + 4 * math.sin(hour_of(state.clock_s) / 24 * 2 * math.pi) - load_w / 1_000, 1)
    ports = tuple(
        _port_telemetry(port, number, volts, _ambient_c(state))
        for number, port in enumerate(state.ports, 1)
        if whole or number in parts
    )
    if not whole:
        return ChargerTelemetry(ts=ts_ms, seq=seq, ports=ports)
    return ChargerTelemetry(
        ts=ts_ms,
        seq=seq,
        ports=ports,
        voltage_v=volts,
        ambient_c=round(_ambient_c(state), 1),
        leakage_ma=round(0.4 + 0.3 * sum(port.session is not None for port in state.ports), 1),
        mains=True,
        signal_pct=state.signal_pct,
    )


def _port_telemetry(port: Port, number: int, volts: float, ambient_c: float) -> PortTelemetry:
    # A meter's small ripple; a formula, so that a snapshot needs no rng.
    watts = power_w(port) * (1 + 0.008 * math.sin(port.elapsed_s / 23 + number))
    session = port.session
    return PortTelemetry(
        port=number,
        state=port.phase,
        power_w=round(watts, 1),
        current_a=round(watts / volts, 3),
        voltage_v=volts,
        energy_kwh=round(energy_kwh(port), 4) if session else None,
        duration_s=int(duration_s(port)) if session else None,
        temp_c=round(ambient_c + port.rise_c, 1),
        ambient_c=round(ambient_c, 1),
        order=session.order if session else None,
    )


def _step_port(pile: Pile, port: Port, number: int, clock_s: float, dt_s: float, rng: random.Random) -> Port:
    while dt_s >= (left_s := port.length_s - port.elapsed_s):
        clock_s += left_s
        dt_s -= left_s
        port = _next_phase(pile, _pass(port, left_s), number, clock_s, rng)
    return _pass(port, dt_s)


def _pass(port: Port, dt_s: float) -> Port:
    rise_c = towards(port.rise_c, PORT_RISE_C * power_w(port) / 400, dt_s, PORT_SETTLE_S)
    return port._replace(elapsed_s=port.elapsed_s + dt_s, rise_c=rise_c)


def _next_phase(pile: Pile, port: Port, number: int, clock_s: float, rng: random.Random) -> Port:
    """A phase of a port has ended: what comes next."""
    match port.phase:
        case "idle":
            # Somebody finds the phone and scans the code.
            return Port("plugged", 0.0, rng.uniform(10, 90), None, port.rise_c)
        case "plugged":
            session = _draw_session(_order(clock_s, number), rng)
            return Port("charging", 0.0, session.charging_s, session, port.rise_c)
        case "charging":
            return port._replace(phase="floating", elapsed_s=0.0, length_s=FLOAT_S)
        case "floating":
            return port._replace(phase="full", elapsed_s=0.0, length_s=_occupied_s(pile, clock_s, rng))
        case "full":
            return Port("idle", 0.0, _next_plug_s(pile, clock_s, rng), None, port.rise_c)


def _draw_session(order: str, rng: random.Random) -> Session:
    """2-9 h and 0.3-1.2 kWh (DOMAIN section 7), three quarters of the energy at constant power."""
    battery = rng.choices(BATTERIES, [battery.share for battery in BATTERIES])[0]
    watts = rng.uniform(battery.least_w, battery.most_w)
    energy_ws = rng.uniform(max(0.3, watts * 1.5 / 1_000), min(1.2, watts * 6 / 1_000)) * 3_600_000
    taper_s = energy_ws * 0.25 / watts / (1 - TAPER_END)
    return Session(order, watts, energy_ws * 0.75 / watts, taper_s)


def _occupied_s(pile: Pile, clock_s: float, rng: random.Random) -> float:
    """How long a full bike stays: whoever charges overnight comes at 06-08 h."""
    hour = hour_of(clock_s)
    if pile.pace.by_hour and (hour >= 20 or hour < 6):
        return ((6 - hour) % 24 + rng.uniform(0, 2)) * 3_600
    return rng.expovariate(1 / 2_400) + 60


def _next_plug_s(pile: Pile, clock_s: float, rng: random.Random) -> float:
    return wait_s(clock_s, pile.pace.sessions_per_day, PLUG_INS if pile.pace.by_hour else None, rng)


def _order(clock_s: float, number: int) -> str:
    """16 characters, as the DNY protocol has them: the local time and the port."""
    local = datetime.fromtimestamp(clock_s, UTC) + timedelta(seconds=CHINA_OFFSET_S)
    return f"{local:%Y%m%d%H%M%S}{number:02d}"


def _float_s(port: Port) -> float:
    return {"floating": port.elapsed_s, "full": FLOAT_S}.get(port.phase, 0.0)


def _ambient_c(state: PileState) -> float:
    return outdoor_c(state.clock_s) + 3


def _with_port(state: PileState, number: int, port: Port) -> PileState:
    return replace(state, ports=(*state.ports[: number - 1], port, *state.ports[number:]))


def _start_device(device: Device, pace: Pace, clock_s: float, rng: random.Random) -> PileState:
    return start(Pile(ports=int(device.statics["ports"]), pace=pace), clock_s, rng)


def _watches(state: PileState) -> Sequence[Watch]:
    report_s = state.pile.pace.port_report_s
    return (
        Watch(WHOLE, "", FULL_REPORT_S),
        *(
            Watch(number, port.phase, report_s if port.phase in ("charging", "floating") else math.inf)
            for number, port in enumerate(state.ports, 1)
        ),
    )


DRIVER: Final = Driver("pile-sim-1.0", _start_device, step, _watches, snapshot)
