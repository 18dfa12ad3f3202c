"""Hours of a neighbourhood's life as readings and events, for scenarios that need no wire."""

from __future__ import annotations

from collections.abc import Iterator

from core.payload import decode
from core.reading import Event, Message, Reading
from simulators import presets
from simulators.fleet import Fleet
from simulators.plan import parse

START_MS = 1_790_000_000_000
DELAY_MS = 40
FAULTS = ("entrapment@10m", "overheat@15m", "relay-welded@5m", "stopped@20m", "smoke@25m")


def messages(seconds: int, *, seed: int = 1) -> Iterator[Message]:
    """What 12 lifts and 4 piles of a quiet neighbourhood say, at rest and at work, with a few faults among it."""
    preset = presets.PRESETS["demo"]()._replace(pace=presets.PRESETS["fenghe"]().pace)
    fleet = Fleet(preset, seed=seed, faults=[parse(fault) for fault in FAULTS])
    for second in range(seconds):
        now = START_MS + second * 1_000
        for said in fleet.tick(now):
            yield decode(said.topic, said.payload, now + DELAY_MS)


def copied(items: tuple[Reading | Event, ...], number: int) -> Iterator[Reading | Event]:
    """The same life a little later, of other devices: four neighbourhoods share a site."""
    for one in items:
        site, _, device = one.device_id.partition(".")
        shift = number * 137
        yield one._replace(device_id=f"{site}-{number // 4}.{device}-{number}", ts=one.ts + shift, rx=one.rx + shift)
