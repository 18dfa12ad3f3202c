"""From `--fault` texts to a plan: which fault befalls which device, and when.

The text is NAME@START[+DURATION][:DEVICE[/PORT]]: `entrapment@2m`, `overheat@30s:pile-02/4`, `code:5@1m+5m:lift-03`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from core.clock import duration_ms
from core.errors import SettingsError
from core.kinds import KINDS
from core.topics import ID_PATTERN
from simulators import faults
from simulators.device import WHOLE, Device
from simulators.faults import SimulatedFault

_TEXT = re.compile(
    r"(?P<name>[^@]+)@(?P<start>[^:+@]+)(?:\+(?P<lasts>[^:+@]+))?(?::(?P<target>[^+@]+)(?:\+(?P<late>[^+@]+))?)?"
)
_ID: Final = ID_PATTERN.strip("^$")
_TARGET = re.compile(rf"(?:(?P<site>{_ID})\.)?(?P<device>{_ID})(?:/(?P<port>\d+))?")
_UNITS: Final = (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


class FaultRequest(NamedTuple):
    """One `--fault` option. Times in ms; `start_ms` counts from the first tick of the fleet."""

    name: str
    start_ms: int
    lasts_ms: int | None = None
    """None: the fault's own default."""
    device: str | None = None
    """`lift-01` or `fenghe.lift-01`; None: the plan picks one."""
    port: int | None = None

    def __str__(self) -> str:
        lasts = "" if self.lasts_ms is None else f"+{_duration(self.lasts_ms)}"
        port = "" if self.port is None else f"/{self.port}"
        target = "" if self.device is None else f":{self.device}{port}"
        return f"{self.name}@{_duration(self.start_ms)}{lasts}{target}"


class Planned(NamedTuple):
    """Ground truth: a fault, its device, and when it is there. Times in ms from the first tick of the fleet."""

    fault: SimulatedFault
    device: Device
    port: int
    """WHOLE for the device itself."""
    start_ms: int
    end_ms: int | None


def parse(text: str) -> FaultRequest:
    """One `--fault` option. SettingsError says what is wrong with it."""
    match = _TEXT.fullmatch(text.strip())
    if match is None or (match["lasts"] and match["late"]):
        raise _wrong(text, "write NAME@START[+DURATION][:DEVICE[/PORT]], like entrapment@2m or overheat@30s:pile-02/4")
    try:
        fault = faults.find(match["name"])
        start_ms = duration_ms(match["start"])
        lasts = match["lasts"] or match["late"]
        lasts_ms = duration_ms(lasts) if lasts else None
    except (ValueError, SettingsError) as error:
        raise _wrong(text, str(error)) from None
    device, port = _target(text, fault, match["target"])
    return FaultRequest(fault.name, start_ms, lasts_ms, device, port)


def assign(requests: Sequence[FaultRequest], devices: Sequence[Device], seed: int) -> tuple[Planned, ...]:
    """A device for every fault, in the order given.

    A request without a device gets one by the seed, of the right kind, never one that has a fault while others are
    free. SettingsError if a device does not exist or is of another kind.
    """
    rng = random.Random(f"{seed}/faults")
    named = [_named(request, devices) for request in requests]
    taken = {device.device_id for device in named if device}
    planned = []
    for request, given in zip(requests, named, strict=True):
        fault = faults.find(request.name)
        device = given or _pick(request, fault, devices, taken, rng)
        taken.add(device.device_id)
        end_ms = _end_ms(request, fault)
        planned.append(Planned(fault, device, _port(request, fault, device, rng), request.start_ms, end_ms))
    return tuple(planned)


def _target(text: str, fault: SimulatedFault, target: str | None) -> tuple[str | None, int | None]:
    if target is None:
        return None, None
    match = _TARGET.fullmatch(target)
    if match is None:
        raise _wrong(text, f"'{target}' is not a device; write lift-03, pile-02/4 or site.lift-03")
    device = f"{match['site']}.{match['device']}" if match["site"] else match["device"]
    if match["port"] is None:
        return device, None
    if "charger" not in fault.kinds or fault.silent:
        raise _wrong(text, f"{fault.name} does not sit on a port; leave out '/{match['port']}'")
    return device, int(match["port"])


def _named(request: FaultRequest, devices: Sequence[Device]) -> Device | None:
    if request.device is None:
        return None
    found = [device for device in devices if request.device in (device.id, device.device_id)]
    if not found:
        raise _wrong(str(request), f"there is no device '{request.device}' in this fleet, {_range(devices)}")
    if len(found) > 1:
        raise _wrong(str(request), f"several sites have '{request.device}'; write {found[0].device_id}")
    kinds = faults.find(request.name).kinds
    if found[0].kind not in kinds:
        needed = " or ".join(KINDS[kind].en for kind in kinds)
        raise _wrong(str(request), f"{request.device} is a {KINDS[found[0].kind].en}; {request.name} needs a {needed}")
    return found[0]


def _pick(
    request: FaultRequest, fault: SimulatedFault, devices: Sequence[Device], taken: set[str], rng: random.Random
) -> Device:
    fitting = [device for device in devices if device.kind in fault.kinds]
    if not fitting:
        raise _wrong(str(request), f"this fleet has no {' or '.join(KINDS[kind].en for kind in fault.kinds)}")
    return rng.choice([device for device in fitting if device.device_id not in taken] or fitting)


def _port(request: FaultRequest, fault: SimulatedFault, device: Device, rng: random.Random) -> int:
    ports = int(device.statics.get("ports", 0))
    if request.port is None:
        return rng.randint(1, ports) if fault.on_port else WHOLE
    if not 1 <= request.port <= ports:
        raise _wrong(str(request), f"{device.id} has ports 1 to {ports}, not {request.port}")
    return request.port


def _end_ms(request: FaultRequest, fault: SimulatedFault) -> int | None:
    if request.lasts_ms is not None:
        return request.start_ms + request.lasts_ms
    return None if fault.lasts_s is None else request.start_ms + round(fault.lasts_s * 1_000)


def _range(devices: Sequence[Device]) -> str:
    return f"which has {devices[0].id} to {devices[-1].id}" if devices else "which has none"


def _duration(ms: int) -> str:
    """The shortest text that `duration_ms` reads back."""
    return next((f"{ms // size}{unit}" for unit, size in _UNITS if ms and ms % size == 0), "0s")


def _wrong(text: str, reason: str) -> SettingsError:
    return SettingsError(f"fault '{text}': {reason}")
