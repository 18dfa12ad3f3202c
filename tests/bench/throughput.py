"""How fast a full broker is emptied: our service against a bare subscriber that only counts.

Both have a session on the same broker; one load fills both; then they are emptied one after the other, in changing
order. The rate is taken over the last nine tenths, so that starting up does not count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from core import topics
from core.settings import Mqtt
from tests import servers
from tests.bench import bare, processes
from tests.bench.figures import Figure, median
from tests.bench.options import Options

PROMISED = {"duckdb": 1.0, "influx": 0.8}
POLL_S = 0.25
LONGEST_S = 300


def throughput(folder: Path, options: Options) -> list[Figure]:
    figures = []
    for store in options.stores:
        rounds = [_round(folder / f"{store}-{number}", store, number, options) for number in range(options.rounds)]
        figures += _figures(store, rounds)
    return figures


def _figures(store: str, rounds: list[dict[str, dict[str, float]]]) -> list[Figure]:
    def of(who: str, what: str) -> float:
        return median([one[who][what] for one in rounds])

    ratio = median([one["ours"]["rate"] / one["bare"]["rate"] for one in rounds])
    figures = [
        Figure(f"throughput, {store}: ours", of("ours", "rate"), "messages/s"),
        Figure(f"throughput, {store}: bare paho", of("bare", "rate"), "messages/s"),
        Figure(f"throughput, {store}: ratio", ratio, "", at_least=PROMISED[store]),
        Figure(f"throughput, {store}: CPU of bare paho", of("bare", "cpu_us"), "us/message"),
        Figure(f"throughput, {store}: our CPU", of("ours", "cpu_us"), "us/message"),
    ]
    others = [name for name in rounds[0]["ours"] if name not in ("rate", "cpu_us")]
    return figures + [Figure(f"throughput, {store}: CPU of {name}", of("ours", name), "us/message") for name in others]


def _round(folder: Path, store: str, number: int, options: Options) -> dict[str, dict[str, float]]:
    folder.mkdir()
    options.progress(f"throughput, {store}: round {number + 1} of {options.rounds}")
    with servers.mosquitto(folder, queued=2 * options.messages) as broker:
        _subscribe(broker.port, Mqtt().client_id)
        _subscribe(broker.port, bare.CLIENT_ID)
        with processes.load(
            broker.url, messages=options.messages, devices=options.devices, brief=options.brief, seconds=LONGEST_S
        ) as load:
            assert load.wait()["acked"] == options.messages
        takers: dict[str, Callable[[], dict[str, float]]] = {
            "ours": lambda: _ours(folder, broker, store, options.messages),
            "bare": lambda: _bare(broker.port, options.messages),
        }
        order = sorted(takers, reverse=bool(number % 2))
        return {who: takers[who]() for who in order}


def _subscribe(port: int, client_id: str) -> None:
    """A session that collects messages while nobody is connected."""

    def connected(visitor: paho.Client, *_: Any) -> None:
        visitor.subscribe(topics.subscription(), qos=1)

    def subscribed(visitor: paho.Client, *_: Any) -> None:
        visitor.disconnect()

    visitor = bare.client(client_id)
    visitor.on_connect, visitor.on_subscribe = connected, subscribed
    visitor.connect("127.0.0.1", port)
    visitor.loop_forever()


def _bare(port: int, messages: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.bare", str(port), str(messages)]
    done = subprocess.run(command, cwd=servers.ROOT, check=True, capture_output=True, timeout=LONGEST_S)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _ours(folder: Path, broker: servers.Mosquitto, store: str, messages: int) -> dict[str, float]:
    with processes.service(folder, broker, store) as service:
        pids = {"cpu_us": service.pid} | service.others
        servers.wait_until("a tenth", lambda: service.settled() >= messages // 10, timeout_s=LONGEST_S)
        settled, began = service.settled(), time.perf_counter()
        cpu_began = {name: processes.cpu_s(pid) for name, pid in pids.items()}
        deadline = began + LONGEST_S
        first = settled
        while settled < messages:
            assert time.perf_counter() < deadline, f"{settled} of {messages} settled in {LONGEST_S} s"
            time.sleep(POLL_S)
            settled, ended = service.settled(), time.perf_counter()
        taken = settled - first
        cpu = {name: (processes.cpu_s(pid) - cpu_began[name]) / taken * 1e6 for name, pid in pids.items()}
        return {"rate": taken / (ended - began)} | cpu
