"""`make bench`: the figures of the main path, as a table and as one JSON line. Real Mosquitto, loopback, bounded time.

Absolute figures depend on the machine and on what else it does; ratios within one run are what counts.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import paho.mqtt.client as paho

from alerts.engine import Engine
from alerts.rules import load_rules
from core.mqtt import client
from core.payload import decode
from core.reading import Batch
from core.settings import Mqtt
from storage.duckdb import DuckDbSeries
from tests import servers

PROBES = 200
OTHER_PER_S = 500
START_MS = 1_800_000_000_000


class Figure(NamedTuple):
    """One measured figure; `limit` is what the product promises, where it promises something."""

    name: str
    value: float
    unit: str
    limit: float | None = None


def main() -> None:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (pure, series_writes, message_to_ticket, demo):
            figures += part(folder)
    width = max(len(figure.name) for figure in figures)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    for one in figures:
        promise = "" if one.limit is None else f"  (promised: under {one.limit:g})"
        print(f"{one.name:<{width}}  {one.value:>10.1f} {one.unit}{promise}")
    print(json.dumps({one.name: {"value": round(one.value, 2), "unit": one.unit} for one in figures}))


def pure(_folder: Path) -> list[Figure]:
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


def series_writes(folder: Path) -> list[Figure]:
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


def message_to_ticket(folder: Path) -> list[Figure]:
    """From the publisher's call to a committed ticket, while other devices send 500 messages a second."""
    data = folder / "latency"
    stop = threading.Event()
    with (
        servers.mosquitto(folder) as broker,
        servers.tizhuang(["serve", "--mqtt-url", broker.url, "--http-port", "0"], data=data) as service,
    ):
        ready = lambda: httpx.get(f"{service.http}/api/v1/stats").json()["connected"]  # noqa: E731
        servers.wait_until("connected", ready)
        others = threading.Thread(target=_other_traffic, args=(broker.url, stop))
        others.start()
        try:
            time.sleep(2)  # let the traffic reach its pace before measuring
            latencies = sorted(_probe(broker.url, data / "records.sqlite"))
            stats = httpx.get(f"{service.http}/api/v1/stats").json()
        finally:
            stop.set()
            others.join()
        resident = _resident_mb(service.child.pid)
    return [
        Figure("message to ticket, median", latencies[len(latencies) // 2] * 1000, "ms"),
        Figure("message to ticket, p99", latencies[int(len(latencies) * 0.99)] * 1000, "ms", 200),
        Figure("messages received meanwhile", stats["received"], "messages"),
        Figure("service resident under this load", resident, "MB"),
    ]


def demo(folder: Path) -> list[Figure]:
    """From the command to a page that answers, and the memory of all its processes after 20 s."""
    started = time.monotonic()
    command = ["demo", "--http-port", "0", "--mqtt-port", "0"]
    with servers.tizhuang(command, data=folder / "demo") as service:
        assert httpx.get(f"{service.http}/").status_code == 200
        ready_s = time.monotonic() - started
        time.sleep(20)
        pid = service.child.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        resident = sum(map(_resident_mb, [pid, *map(int, children)]))
    return [Figure("demo ready", ready_s, "s", 5), Figure("demo resident, all processes", resident, "MB", 300)]


def _other_traffic(url: str, stop: threading.Event) -> None:
    """Lifts that run normally, 500 messages a second."""
    publisher = _publisher(url)
    due = time.monotonic()
    number = 0
    while not stop.is_set():
        for _ in range(OTHER_PER_S // 50):
            number += 1
            topic = f"tizhuang/v1/bench/elevator/lift-{number % 500}/telemetry"
            body = {
                "ts": _now_ms(),
                "seq": number,
                "moving": True,
                "door": "closed",
                "door_zone": False,
                "occupied": True,
            }
            publisher.publish(topic, json.dumps(body), qos=1)
        due += 0.02
        time.sleep(max(0.0, due - time.monotonic()))
    publisher.disconnect()
    publisher.loop_stop()


def _probe(url: str, records: Path) -> list[float]:
    """Seconds from publishing an alarm button to its ticket being visible to another process."""
    publisher = _publisher(url)
    connection = sqlite3.connect(f"file:{records}?mode=ro", uri=True)
    latencies = []
    for number in range(PROBES):
        device = f"probe-{number}"
        event = {"id": f"e-{number}", "ts": _now_ms(), "code": "90", "table": "gbt24476", "state": "raised"}
        began = time.perf_counter()
        publisher.publish(f"tizhuang/v1/bench/elevator/{device}/event", json.dumps(event), qos=1)
        query = "SELECT 1 FROM incident JOIN ticket ON ticket.incident_id = incident.id WHERE device_id = ?"
        while connection.execute(query, [f"bench.{device}"]).fetchone() is None:
            assert time.perf_counter() - began < 10, "no ticket within 10 s"
            time.sleep(0.001)
        latencies.append(time.perf_counter() - began)
        time.sleep(0.03)
    connection.close()
    publisher.disconnect()
    publisher.loop_stop()
    return latencies


def _publisher(url: str) -> paho.Client:
    made = client(Mqtt(url=url))
    made.connect("127.0.0.1", int(url.rsplit(":", 1)[1]))
    made.loop_start()
    return made


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
