"""The processes of a bench: what they cost, the load beside them, and the service in front of each series store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests import servers

STORES = ("duckdb", "influx")
_TICK = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds of a process with all its threads, until now."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / _TICK


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Service:
    """A running `tizhuang serve` and its counts."""

    def __init__(self, running: servers.Tizhuang, others: dict[str, int]) -> None:
        self.http = running.http
        self.pid = running.child.pid
        self.data = running.data
        self.others = others
        """Process ids of the servers that work for it, by name."""
        self._client = httpx.Client(base_url=running.http, timeout=30)

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.get("/api/v1/stats").json()
        return found

    def settled(self) -> int:
        counts = self.stats()
        return int(counts["stored"] + counts["duplicate"] + counts["quarantined"])

    def get(self, path: str, **query: Any) -> Any:
        answer = self._client.get(path, params=query)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def store(name: str, folder: Path) -> Iterator[tuple[dict[str, str], dict[str, int]]]:
    """(environment of the service, process ids) of a series store."""
    if name == "duckdb":
        yield {}, {}
        return
    place = folder / "influx"
    place.mkdir(exist_ok=True)
    with servers.influxd(place) as influx:
        yield {"TIZHUANG_INFLUX__URL": influx.url}, {"influxd": influx.child.pid}


@contextmanager
def service(folder: Path, broker: servers.Mosquitto, name: str, data: str = "data") -> Iterator[Service]:
    """`tizhuang serve` with a series store of its own, connected."""
    with ExitStack() as stack:
        env, pids = stack.enter_context(store(name, folder))
        running = stack.enter_context(serving(folder, broker, env, data))
        yield Service(running, pids | {"mosquitto": broker.child.pid})


@contextmanager
def serving(folder: Path, broker: servers.Mosquitto, env: dict[str, str], data: str) -> Iterator[servers.Tizhuang]:
    command = ["serve", "--mqtt-url", broker.url, "--http-port", "0"]
    with servers.tizhuang(command, data=folder / data, env=env) as running:
        stats = f"{running.http}/api/v1/stats"
        servers.wait_until("connected", lambda: httpx.get(stats, timeout=30).json()["connected"])
        yield running


class LoadProcess:
    """`python -m tests.load` beside us: how much the broker has acknowledged, and when."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.report: dict[str, Any] = {}
        self._at: list[float] = []
        self._acked: list[int] = []
        self._reader = threading.Thread(target=self._read, name="load-progress", daemon=True)
        self._reader.start()

    @property
    def acked(self) -> int:
        return self._acked[-1] if self._acked else 0

    def acked_at(self, number: int) -> float:
        """The time (Unix, s) at which so many messages were acknowledged, or the last one we know."""
        index = bisect_left(self._acked, number)
        return self._at[min(index, len(self._at) - 1)] if self._at else time.time()

    def wait(self) -> dict[str, Any]:
        """Its last report, after its end."""
        self.child.wait()
        self._reader.join()
        assert self.child.returncode == 0, f"the load ended with {self.child.returncode}"
        return self.report

    def _read(self) -> None:
        assert self.child.stdout
        for line in self.child.stdout:
            told = json.loads(line)
            if "at" in told:
                self._acked.append(told["acked"])
                self._at.append(told["at"])
            else:
                self.report = told


@contextmanager
def load(url: str, **plan: object) -> Iterator[LoadProcess]:
    """The load in its own process; asked to end when the block ends before it."""
    words = [word for name, value in plan.items() for word in _option(name, value)]
    command = [sys.executable, "-m", "tests.load", "--url", url, "--progress", *words]
    child = subprocess.Popen(command, cwd=servers.ROOT, stdout=subprocess.PIPE, text=True)
    running = LoadProcess(child)
    try:
        yield running
    finally:
        if child.poll() is None:
            child.terminate()
        child.wait()


def _option(name: str, value: object) -> list[str]:
    if value is None or value is False:
        return []
    return [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
