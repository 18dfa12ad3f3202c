"""From a message to its ticket, while all other devices go on talking."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import paho.mqtt.client as paho

from core.mqtt import client
from core.settings import Mqtt
from tests import servers
from tests.bench import processes
from tests.bench.figures import Figure, median, percentile
from tests.bench.options import Options

PROBES = 200
LONGEST_S = 180


def ticket(folder: Path, options: Options) -> list[Figure]:
    """With 500 messages a second of 500 lifts: a district on a small machine."""
    quiet = options._replace(rate=500, devices=500)
    latencies, resident = _measure(folder, quiet, "duckdb", "ticket at 500/s")
    return [*_figures("500/s, duckdb", latencies, 200), Figure("service resident under this load", resident, "MB")]


def latency(folder: Path, options: Options) -> list[Figure]:
    """With the full load."""
    figures = []
    for store in options.stores:
        name = f"{options.rate:g}/s, {store}"
        (folder / store).mkdir()
        latencies, _ = _measure(folder / store, options, store, f"latency at {name}")
        figures += _figures(name, latencies, 100)
    return figures


def _figures(name: str, latencies: list[float], promised_ms: float) -> list[Figure]:
    return [
        Figure(f"message to ticket at {name}: median", median(latencies) * 1000, "ms"),
        Figure(f"message to ticket at {name}: p99", percentile(latencies, 0.99) * 1000, "ms", under=promised_ms),
        Figure(f"message to ticket at {name}: slowest", max(latencies) * 1000, "ms"),
    ]


def _measure(folder: Path, options: Options, store: str, what: str) -> tuple[list[float], float]:
    """(seconds of each probe, resident MB of the service)."""
    options.progress(f"{what}: {PROBES} probes, about 20 s")
    with (
        servers.mosquitto(folder, queued=1_000_000) as broker,
        processes.service(folder, broker, store) as service,
        processes.load(
            broker.url, rate=options.rate, devices=options.devices, brief=options.brief, seconds=LONGEST_S
        ) as load,
    ):
        warm = 3 * options.rate
        servers.wait_until("the load at its pace", lambda: load.acked > warm, timeout_s=60)
        servers.wait_until("the first of it settled", lambda: service.settled() > warm, timeout_s=60)
        latencies = _probe(broker, service.data / "records.sqlite")
        return latencies, processes.resident_mb(service.pid)


def _probe(broker: servers.Mosquitto, records: Path) -> list[float]:
    """Seconds from publishing an alarm button to its ticket being visible to another process."""
    publisher = _publisher(broker)
    connection = sqlite3.connect(f"file:{records}?mode=ro", uri=True)
    latencies = []
    for number in range(PROBES):
        device = f"probe-{number}"
        now_ms = time.time_ns() // 1_000_000
        event = {"id": f"e-{number}", "ts": now_ms, "code": "90", "table": "gbt24476", "state": "raised"}
        began = time.perf_counter()
        publisher.publish(f"tizhuang/v1/bench/elevator/{device}/event", json.dumps(event), qos=1)
        query = "SELECT 1 FROM incident JOIN ticket ON ticket.incident_id = incident.id WHERE device_id = ?"
        while connection.execute(query, [f"bench.{device}"]).fetchone() is None:
            assert time.perf_counter() - began < 60, "no ticket within 60 s"
            time.sleep(0.001)
        latencies.append(time.perf_counter() - began)
        time.sleep(0.03)
    connection.close()
    publisher.disconnect()
    publisher.loop_stop()
    return latencies


def _publisher(broker: servers.Mosquitto) -> paho.Client:
    made = client(Mqtt(url=broker.url))
    made.connect("127.0.0.1", broker.port)
    made.loop_start()
    return made
