"""How much memory the engine needs for 100 000 devices: measured in a process of its own, which holds nothing else.

`python -m tests.bench.engine_memory DEVICES SNAPSHOTS` prints one JSON line, in MB and KB.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

from alerts.engine import Engine
from alerts.rulebook import load_rules
from core.payload import decode
from core.reading import Batch, Event, Message
from tests import servers
from tests.bench.figures import Figure
from tests.bench.life import START_MS, messages
from tests.bench.options import Options
from tests.bench.processes import resident_mb

DEVICES = 100_000
PILES = 25
"""Of a hundred devices; the others are lifts."""
SNAPSHOTS = 2
EVERY_MS = 60_000
FEW = 1_000
FILLED = 120
"""Snapshots until windows of up to two hours are full; those of days hold as many buckets as they had time for."""
EVENTFUL = 50
"""One device in so many has raised a fault."""


def engine_memory(_folder: Path, options: Options) -> list[Figure]:
    options.progress(f"{DEVICES} devices say {SNAPSHOTS} things each: minutes")
    all_of_them = _child(DEVICES, SNAPSHOTS)
    options.progress(f"{FEW} devices fill their windows")
    later = _child(FEW, FILLED)
    filled_mb = ((100 - PILES) * later["lift_kb"] + PILES * later["pile_kb"]) / 100 * DEVICES / 1024
    return [
        Figure("engine memory: 100 000 devices, registered and silent", all_of_them["silent"], "MB"),
        Figure("engine memory: 100 000 devices, all have spoken", all_of_them["spoken"], "MB", under=400),
        Figure("engine memory: a lift", all_of_them["lift_kb"], "KB"),
        Figure("engine memory: a pile", all_of_them["pile_kb"], "KB"),
        Figure("engine memory: a lift, after two hours", later["lift_kb"], "KB"),
        Figure("engine memory: a pile, after two hours", later["pile_kb"], "KB"),
        Figure("engine memory: 100 000 devices after two hours, worked out", filled_mb, "MB", under=400),
    ]


def _child(devices: int, snapshots: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.engine_memory", str(devices), str(snapshots)]
    done = subprocess.run(command, cwd=servers.ROOT, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _measure(count: int, snapshots: int) -> dict[str, float]:
    life = list(messages(60))
    lift = next(one for one in life if one.kind == "elevator" and len(one.readings[0].fields) > 5)
    pile = max((one for one in life if one.kind == "charger"), key=lambda one: len(one.readings))
    engine = Engine(load_rules(servers.ROOT / "deploy" / "rules"))
    lifts = [f"site-{number // 400}.lift-{number}" for number in range(count * (100 - PILES) // 100)]
    piles = [f"site-{number // 400}.pile-{number}" for number in range(count * PILES // 100)]
    before = _resident()
    for device_id in lifts:
        engine.know_device(device_id, "elevator", {"floors": 6}, now=START_MS)
    for device_id in piles:
        engine.know_device(device_id, "charger", {}, now=START_MS)
    silent = _resident()
    _speak(engine, lift, lifts, snapshots)
    lifts_spoken = _resident()
    _speak(engine, pile, piles, snapshots)
    spoken = _resident()
    share = (silent - before) / count
    return {
        "silent": silent - before,
        "spoken": spoken - before,
        "lift_kb": ((lifts_spoken - silent) / len(lifts) + share) * 1024,
        "pile_kb": ((spoken - lifts_spoken) / len(piles) + share) * 1024,
    }


def _speak(engine: Engine, message: Message, devices: list[str], snapshots: int) -> None:
    """Each device says the same at a few instants; values are objects of their own, as after decoding."""
    for snapshot in range(snapshots):
        for number, device_id in enumerate(devices):
            ts = START_MS + snapshot * EVERY_MS + number % 997
            readings = tuple(
                one._replace(device_id=device_id, ts=ts, rx=ts + 40, fields=json.loads(json.dumps(dict(one.fields))))
                for one in message.readings
            )
            engine.observe(Batch(readings))
            if snapshot == 0 and number % EVENTFUL == 0:
                engine.observe(Batch(_events(device_id, message.kind, ts)))


def _events(device_id: str, kind: str, ts: int) -> tuple[Event, ...]:
    site, _, device = device_id.partition(".")
    table, code = ("gbt24476", "2") if kind == "elevator" else ("dny", "1")
    body = {"id": f"e-{ts}", "ts": ts, "seq": 1, "code": code, "table": table, "state": "raised"}
    return decode(f"tizhuang/v1/{site}/{kind}/{device}/event", json.dumps(body).encode(), ts + 40).events


def _resident() -> float:
    gc.collect()
    return resident_mb(os.getpid())


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]), int(sys.argv[2]))))
