"""Acceptance: from a real broker and an independent client to a ticket in the API and on a page."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests import servers

CASES = servers.ROOT / "tests" / "cases"


class Recorded(NamedTuple):
    """One message of a recording. `at_ms` counts from the end of the recording backwards."""

    at_ms: int
    topic: str
    payload: dict[str, Any]
    retain: bool


class Recording:
    """What devices said, to be said again."""

    def __init__(self, name: str) -> None:
        lines = (CASES / "recordings" / f"{name}.jsonl").read_text().splitlines()
        self.messages = [Recorded(**json.loads(line)) for line in lines]

    def play(self, broker: servers.Mosquitto, end_ms: int, *, start: int = 0, stop: int | None = None) -> None:
        """Publishes messages with `mosquitto_pub`, stamped so that the recording's end is at `end_ms`."""
        for one in self.messages[start:stop]:
            broker.publish(one.topic, self.body(one, end_ms), retain=one.retain)

    @staticmethod
    def body(one: Recorded, end_ms: int) -> str:
        return json.dumps({"ts": end_ms + one.at_ms, **one.payload})


class Api:
    """The JSON API of a running service."""

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=address, timeout=10)

    def get(self, path: str, **query: Any) -> Any:
        answer = self._client.get(path, params=query)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def items(self, path: str, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(path, **query)["items"]
        return found

    def act(self, ticket: int, action: str, **said: Any) -> httpx.Response:
        return self._client.post(f"/api/v1/tickets/{ticket}/actions/{action}", json={"actor": "tester", **said})

    def tickets(self, device: str) -> list[dict[str, Any]]:
        return self.items("/api/v1/tickets", device=device)

    def wait_for_ticket(self, device: str, *, severity: str = "", timeout_s: float = 30) -> dict[str, Any]:
        """The one ticket of a device, once it is as urgent as that."""

        def there() -> bool:
            return any(severity in ("", one["severity"]) for one in self.tickets(device))

        servers.wait_until(f"a ticket for {device} {severity}", there, timeout_s=timeout_s)
        (ticket,) = self.tickets(device)
        return ticket

    def wait_until_settled(self, received: int) -> dict[str, Any]:
        """Waits until the worker has brought so many messages to their end; returns its counts."""

        def settled() -> bool:
            counts = self.get("/api/v1/stats")
            return bool(counts["received"] >= received and counts["in_flight"] == 0)

        servers.wait_until(f"{received} messages settled", settled)
        found: dict[str, Any] = self.get("/api/v1/stats")
        return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder of the service under test."""
    return tmp_path / "data"


@contextmanager
def serving(broker: servers.Mosquitto, data: Path) -> Iterator[tuple[servers.Tizhuang, Api]]:
    """`tizhuang serve` against a broker, connected."""
    with servers.tizhuang(["serve", "--mqtt-url", broker.url, "--http-port", "0"], data=data) as service:
        api = Api(service.http)
        servers.wait_until("connected to the broker", lambda: api.get("/api/v1/stats")["connected"])
        yield service, api


@contextmanager
def records_locked(data: Path) -> Iterator[None]:
    """Holds the write lock of the records database: the service can receive, and cannot make anything durable."""
    connection = sqlite3.connect(data / "records.sqlite", isolation_level=None, timeout=10)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def rule_states(data: Path, state: str) -> list[tuple[str, str, str, int]]:
    """(device, part, rule, since) of the engine's memory on disk."""
    with sqlite3.connect(f"file:{data / 'records.sqlite'}?mode=ro", uri=True, timeout=10) as connection:
        query = "SELECT device_id, part, rule_id, since_device_ms FROM rule_state WHERE state = ?"
        return connection.execute(query, [state]).fetchall()


def now_ms() -> int:
    return time.time_ns() // 1_000_000
