"""What is measured: every fault some times over, ordinary life, sites that fall silent, several kinds of sensors."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

import yaml

from alerts.rulebook import RuleBook, load_rules, parse_rules
from core.faults import TABLES, Severity
from simulators import presets
from simulators.device import Device
from simulators.faults import FAULTS, find
from simulators.plan import FaultRequest
from tests.detection.judge import Verdict, live
from tests.detection.life import TREND_S, Life, Sensors
from tests.servers import ROOT

RULES: Final = ROOT / "deploy" / "rules"
AFTER_MS, HOUR_MS, DAY_MS = 1_200_000, 3_600_000, 86_400_000

HISTORY_MS: Final = 4 * DAY_MS
"""So long a device lives before a trend begins."""

SENSORS: Final = {
    "20 s lies": Sensors(),
    "20 s lies, no load cell": Sensors(load_cell=False),
    "3 s lies, no load cell": Sensors(lie_s=3.0, load_cell=False),
    "60 s lies, no load cell": Sensors(lie_s=60.0, load_cell=False),
}
"""All of them are wrong 2 % of the time; so often at a time, on average."""


class Scene(NamedTuple):
    """One engine's worth of work, small enough to hand to another process."""

    name: str
    """`faults`, `ordinary`, `site`, or the name of sensors for P0 alone."""
    kind: str
    seed: int
    faults: tuple[FaultRequest, ...] = ()
    length_ms: int = DAY_MS
    sensors: Sensors = Sensors()
    devices: int = 1


@cache
def default_rules() -> RuleBook:
    """Those that are shipped."""
    return load_rules(RULES)


def play(scene: Scene) -> Verdict:
    """What comes of it."""
    book = only_p0() if scene.name.startswith("P0") else default_rules()
    lives = [
        Life(device, scene.seed + number, scene.sensors, scene.faults) for number, device in enumerate(_devices(scene))
    ]
    return live(lives, book, scene.length_ms)


def _devices(scene: Scene) -> list[Device]:
    rng = random.Random(scene.seed)
    fitting = [device for device in presets.get("fenghe").devices if device.kind == scene.kind]
    return rng.sample(fitting, scene.devices)


@cache
def only_p0() -> RuleBook:
    """The rules of entrapments alone: much life in little time."""
    kept = []
    for path in sorted(RULES.glob("elevator*.yaml")):
        kept += [rule for rule in yaml.safe_load(path.read_text())["rules"] if rule["group"] == "entrapment"]
    return parse_rules(yaml.safe_dump({"kind": "elevator", "rules": kept}, allow_unicode=True), "p0.yaml")


def every_fault(times: int, seed: int) -> Iterator[Scene]:
    """Each fault so many times, each time on a device of its own that lives as ever before and after."""
    rng = random.Random(seed)
    for name in (*FAULTS, *_codes()):
        fault = find(name)
        long = fault.told_s > TREND_S
        for _ in range(max(1, times // 5) if long else times):
            start_ms = HISTORY_MS if long else rng.randint(600, 3_600) * 1_000
            yield from _seeded(name, start_ms, HOUR_MS if long else AFTER_MS, rng)


def urgent_faults(seed: int) -> Iterator[Scene]:
    """Each fault of which a P0 or P1 rule tells, once, and little life around it."""
    rng = random.Random(seed)
    book = default_rules()
    groups = {rule.finding.group for rule in book if rule.finding.severity <= Severity.P1}
    codes = {fault for rule in book if rule.finding.severity <= Severity.P1 for fault in rule.events}
    for name in (*FAULTS, *_codes()):
        fault = find(name)
        if fault.group in groups or (not fault.group and fault.truth in codes):
            yield from _seeded(name, rng.randint(120, 600) * 1_000, 120_000, rng)


def _seeded(name: str, start_ms: int, after_ms: int, rng: random.Random) -> Iterator[Scene]:
    fault = find(name)
    length_ms = start_ms + round(fault.told_s * 1_000) + after_ms
    # A sensor that is stuck does not lie in turns as well.
    sensors = Sensors(presence_wrong=0.0) if fault.group == "presence" else Sensors()
    for kind in fault.kinds:
        yield Scene("faults", kind, rng.getrandbits(32), (FaultRequest(fault.name, start_ms),), length_ms, sensors)


def _codes() -> Iterator[str]:
    """One code for every fault of the catalogue that some table has a code for and that rules answer to."""
    left = {fault for rule in default_rules() for fault in rule.events if rule.when is None}
    for table in ("gbt24476", "dny", "bacnet-lift"):
        for code, fault in TABLES[table].codes.items():
            if fault in left:
                left.discard(fault)
                yield f"code:{table}/{code}"
    yield from (f"code:{fault}" for fault in sorted(left))


def ordinary(days: int, seed: int, *, together: int = 5) -> Iterator[Scene]:
    """Lifts and piles to which nothing happens: so many device days of each."""
    for kind in ("elevator", "charger"):
        for number in range(max(1, days // together)):
            yield Scene("ordinary", kind, seed + number, length_ms=together * DAY_MS)


def silent_sites(times: int, seed: int) -> Iterator[Scene]:
    """Six devices that fall silent at once, and are back."""
    for number in range(times):
        gone = (FaultRequest("silence", HOUR_MS, 1_800_000),)
        yield Scene("site", ("elevator", "charger")[number % 2], seed + number, gone, 2 * HOUR_MS, devices=6)


def false_p0(days: int, seed: int) -> Iterator[Scene]:
    """Lifts of several sensors: lives without faults, and an hour between floors with nobody inside."""
    for name, sensors in SENSORS.items():
        for number in range(max(1, days // 10)):
            yield Scene(f"P0 {name}", "elevator", seed + number, length_ms=10 * DAY_MS, sensors=sensors)
        for number in range(max(1, days // 2)):
            stopped = (FaultRequest("stopped", 1_200_000, HOUR_MS),)
            yield Scene(f"P0 stopped {name}", "elevator", seed + number, stopped, 2 * HOUR_MS, sensors)
