"""The judge of all faults: what was acknowledged is in the store or in quarantine, and a fault has one ticket."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests import servers, stored
from tests.acceptance.conftest import now_ms
from tests.faults.scene import Scene, Service
from tests.ledger import Point
from tests.load import Load

TICKETS_S = 30.0
TRAPPED_FOR_MS = 20_000
"""deploy/rules/elevator.yaml: lift-entrapment-between-floors."""


class Verdict(NamedTuple):
    """What was found, for tests that look closer."""

    acked: int
    stored: int
    quarantined: int
    lost_by_broker: list[int]
    """Numbers of messages that the broker acknowledged and that are nowhere; all of them were forgiven."""
    stats: dict[str, int]


def close_the_balance(
    scene: Scene,
    service: Service,
    broker: servers.Mosquitto,
    load: Load,
    *,
    timeout_s: float = 90,
    forgiven: Collection[int] = (),
    clockless: bool = False,
) -> Verdict:
    """Waits until nothing is on its way any more, kills the service, and compares point by point.

    `forgiven`: numbers of messages that the broker itself may have lost. `clockless`: the service believed no device
    time, so messages are recognised by device and sequence number.
    """
    points = list(load.ledger.points())
    must = {number for number in range(len(points)) if load.ledger.is_acked[number] and number not in forgiven}
    stats = _settle(service, broker, timeout_s)
    ours = f"{load.plan.site}."
    faults = _Faults(points, must, load.plan.trapped)
    with suppress(AssertionError):  # `check` says more about what is not there
        tickets = lambda: dict(_tickets(scene, ours)).keys()  # noqa: E731
        servers.wait_until("tickets", lambda: faults.must.keys() <= tickets(), timeout_s=TICKETS_S)
    service.kill()

    url = scene.store_url or scene.influx_url
    kept = stored.points(url) if url else stored.points_in_file(scene.data / "series.duckdb")
    parked = _quarantined(scene.data)
    there = {_key(point, clockless) for point in kept | parked if point.device_id.startswith(ours)}
    missing = [number for number, point in enumerate(points) if _key(point, clockless) not in there]
    lost = [number for number in missing if number in must]
    assert not lost, f"{len(lost)} acknowledged messages are nowhere: {[(n, points[n]) for n in lost[:5]]}"
    strange = there - {_key(point, clockless) for point in points}
    assert not strange, f"{len(strange)} points that nobody sent: {sorted(strange)[:5]}"
    faults.check(_tickets(scene, ours), clockless=clockless)
    acked_and_missing = [number for number in missing if load.ledger.is_acked[number]]
    return Verdict(load.ledger.acked, len(kept), len(parked), acked_and_missing, stats)


def _key(point: Point, clockless: bool) -> tuple[str, int, bool]:
    """What makes a message itself. Where no device time is believed, only its number is left."""
    return point.device_id, point.seq if clockless else point.ts, point.fault


class _Faults:
    """The tickets that must come, and those that may: (device, device time of the incident)."""

    def __init__(self, points: list[Point], must: Collection[int], trapped: int) -> None:
        self.must = {points[n].device_id: points[n].ts for n in sorted(must) if points[n].fault}
        self.may = {point.device_id: point.ts for point in points if point.fault} | self.must
        for point in points[::-1]:
            if int(point.device_id[-5:]) < trapped:
                self.must[point.device_id] = self.may[point.device_id] = point.ts + TRAPPED_FOR_MS

    def check(self, tickets: list[tuple[str, int]], *, clockless: bool) -> None:
        """One ticket per fault, opened at the fault's own time; none for anything else."""
        twice = [device for device, times in Counter(device for device, _ in tickets).items() if times > 1]
        assert not twice, f"more than one ticket for one fault: {twice}"
        found = dict(tickets)
        assert found.keys() >= self.must.keys(), f"no ticket for {sorted(self.must.keys() - found.keys())[:5]}"
        assert found.keys() <= self.may.keys(), f"ticket without a fault: {sorted(found.keys() - self.may.keys())[:5]}"
        if not clockless:
            late = {device: (ts, self.may[device]) for device, ts in found.items() if ts != self.may[device]}
            assert not late, f"incidents with another time than the fault's: {list(late.items())[:5]}"


def _settle(service: Service, broker: servers.Mosquitto, timeout_s: float) -> dict[str, int]:
    """A last message goes through the broker's queue: once it came and nothing is in flight, all before it are safe."""
    marker = f"last-{now_ms()}"
    broker.publish(f"tizhuang/v1/marker/elevator/{marker}/telemetry", json.dumps({"ts": now_ms(), "floor": 1}))

    def settled() -> bool:
        came = f"marker.{marker}" in [row["id"] for row in service.api.items("/api/v1/devices", site="marker")]
        counts = service.stats()
        return came and counts["in_flight"] == counts["spooled"] == 0

    servers.wait_until("all settled", settled, timeout_s=timeout_s)
    found = service.stats()
    assert found["received"] + found["carried"] == found["stored"] + found["duplicate"] + found["quarantined"]
    assert found["balance"] == 0
    assert {found["store_away"], found["blocked_by"], found["alerts_lost"]} == {"", 0}
    servers.wait_until("ready again", lambda: not service.not_ready())
    return found


def _quarantined(data: Path) -> set[Point]:
    """The messages in quarantine, as far as they can be read."""
    found = set()
    with sqlite3.connect(f"file:{data / 'records.sqlite'}?mode=ro", uri=True, timeout=10) as connection:
        for topic, head in connection.execute("SELECT topic, payload_head FROM quarantine"):
            _, _, site, _, device, channel = topic.split("/")
            body = json.loads(head)
            found.add(Point(f"{site}.{device}", body["ts"], body["seq"], channel == "event"))
    return found


def _tickets(scene: Scene, ours: str) -> list[tuple[str, int]]:
    """(device, device time of the incident) of all tickets of the load's site."""
    query = "SELECT device_id, opened_device_ms FROM incident JOIN ticket ON ticket.incident_id = incident.id"
    with sqlite3.connect(f"file:{scene.data / 'records.sqlite'}?mode=ro", uri=True, timeout=10) as connection:
        return [(device, ts) for device, ts in connection.execute(query) if device.startswith(ours)]
