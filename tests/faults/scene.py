"""One installation under test: broker, series store, our service as a process, and the load on it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests import servers
from tests.acceptance.conftest import Api
from tests.load import Load, loading
from tests.packets import Plan

SEED = 20_26


class Service:
    """A running `tizhuang serve`. It can be asked while it lives, and killed."""

    def __init__(self, running: servers.Tizhuang) -> None:
        self.running = running
        self.api = Api(running.http)

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get("/api/v1/stats")
        return found

    def stat(self, name: str) -> Any:
        return self.stats()[name]

    def not_ready(self) -> list[str]:
        """Why `/readyz` says no; empty when it says yes."""
        answer = httpx.get(f"{self.running.http}/readyz", timeout=30)
        reasons: list[str] = answer.json().get("reasons", [])
        assert (answer.status_code == 503) == bool(reasons), answer.text
        return reasons

    def wait(self, what: str, name: str, least: float, *, timeout_s: float = 60) -> None:
        """Until a count is at least so high."""
        servers.wait_until(what, lambda: self.stat(name) >= least, timeout_s=timeout_s)

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.running.child.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def kill(self) -> None:
        self.running.kill()


@dataclass
class Scene:
    """`broker_url` is what the service connects to, perhaps by way of a proxy; `influx_url` likewise, empty: DuckDB.

    `store_url` is InfluxDB itself, for whoever wants to look into it.
    """

    folder: Path
    broker_url: str
    influx_url: str = ""
    store_url: str = ""
    env: dict[str, str] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(SEED))

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @contextmanager
    def serving(self) -> Iterator[Service]:
        """The service, connected. At the end of the block it is killed with -9, if it was not before."""
        with servers.tizhuang(self._command(), data=self.data, env=self._env(), timeout_s=60) as running:
            service = Service(running)
            servers.wait_until("connected to the broker", lambda: service.stat("connected"), timeout_s=60)
            yield service

    def start_and_kill(self, after_s: float) -> None:
        """Starts the service and kills it so soon afterwards that it may still be starting."""
        log = self.folder / "data.log"
        line = [sys.executable, str(servers.ROOT / "tizhuang.py"), *self._command(), "--data", str(self.data)]
        with servers.process(line, log=log, env=os.environ | self._env(), cwd=servers.ROOT):
            time.sleep(after_s)

    def _command(self) -> list[str]:
        return ["serve", "--mqtt-url", self.broker_url, "--http-port", "0"]

    def _env(self) -> dict[str, str]:
        return self.env | ({"TIZHUANG_INFLUX__URL": self.influx_url} if self.influx_url else {})

    @contextmanager
    def load(self, broker_url: str = "", **plan: Any) -> Iterator[Load]:
        """The devices: 400 messages a second, now and then an alarm button, now and then nonsense."""
        usual: dict[str, Any] = {"devices": 200, "rate": 400.0, "faults": 30, "fault_every": 100, "bad_every": 97}
        with loading(broker_url or self.broker_url, Plan(**usual | plan)) as running:
            yield running


class Pausable:
    """A server that can be stopped, killed and started again on the same port and in the same folder."""

    def __init__(self, start: Any) -> None:
        self._start = start
        self._context = start()
        self.server = self._context.__enter__()

    @property
    def child(self) -> subprocess.Popen[bytes]:
        found: subprocess.Popen[bytes] = self.server.child
        return found

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()
        self._leave()

    def stop(self) -> None:
        """A clean stop, as an operator or an upgrade does it."""
        self.child.send_signal(signal.SIGTERM)
        assert self.child.wait(30) == 0
        self._leave()

    def start(self) -> None:
        self._context = self._start()
        self.server = self._context.__enter__()

    def close(self) -> None:
        if self._context is not None:
            self._leave()

    def _leave(self) -> None:
        self._context.__exit__(None, None, None)
        self._context = None
