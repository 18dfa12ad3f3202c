"""The figures of single steps, and of the demo: seconds each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from alerts.engine import Engine
from alerts.rulebook import load_rules
from core.payload import decode
from core.reading import Batch
from storage.duckdb import DuckDbSeries
from tests import servers
from tests.bench.figures import Figure
from tests.bench.options import Options
from tests.bench.processes import resident_mb

START_MS = 1_800_000_000_000


def pure(_folder: Path, _options: Options) -> list[Figure]:
    """Decoding and judging, without any I/O."""
    topic = "tizhuang/v1/fenghe/elevator/lift-01/telemetry"
    body = {"moving": True, "door": "closed", "door_zone": False, "occupied": True, "floor": 3, "speed_mps": 0.5}
    payloads = [json.dumps({"ts": START_MS + i * 1000, "seq": i, **body}).encode() for i in range(20_000)]
    per_decode = _seconds(lambda: [decode(topic, payload, START_MS + 10**9) for payload in payloads]) / len(payloads)
    messages = [decode(topic, payload, START_MS + 10**9) for payload in payloads]
    batches = [Batch(message.readings) for message in messages]
    engine = Engine(load_rules(servers.ROOT / "deploy" / "rules"))
    per_observe = _seconds(lambda: [engine.observe(batch) for batch in batches]) / len(batches)
    return [
        Figure("decode a lift snapshot", per_decode * 1e6, "us"),
        Figure("judge it by all default rules", per_observe * 1e6, "us"),
    ]


def series_writes(folder: Path, _options: Options) -> list[Figure]:
    """One durable batch of 500 messages of 500 devices."""
    store = DuckDbSeries(folder / "bench.duckdb")
    rounds = 20
    batches = []
    for index in range(rounds):
        rx = START_MS + index * 1000
        body = json.dumps(
            {"ts": rx, "seq": index, "moving": True, "floor": 3, "speed_mps": 0.5, "door": "closed"}
        ).encode()
        topics = (f"tizhuang/v1/fenghe/elevator/lift-{number}/telemetry" for number in range(500))
        batches.append(Batch(tuple(one for topic in topics for one in decode(topic, body, rx).readings)))
    began = time.perf_counter()
    for batch in batches:
        store.write(batch)
    spent = time.perf_counter() - began
    store.close()
    return [Figure("store 500 messages (DuckDB, durable)", spent / rounds * 1000, "ms")]


def demo(folder: Path, _options: Options) -> list[Figure]:
    """From the command to a page that answers, and the memory of all its processes after 20 s."""
    started = time.monotonic()
    command = ["demo", "--http-port", "0", "--mqtt-port", "0"]
    with servers.tizhuang(command, data=folder / "demo") as service:
        assert httpx.get(f"{service.http}/").status_code == 200
        ready_s = time.monotonic() - started
        time.sleep(20)
        pid = service.child.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        resident = sum(map(resident_mb, [pid, *map(int, children)]))
    return [
        Figure("demo ready", ready_s, "s", under=5),
        Figure("demo resident, all processes", resident, "MB", under=300),
    ]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
