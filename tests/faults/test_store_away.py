"""InfluxDB is killed, stays away, comes back: messages wait on disk, alerts do not wait at all."""

from __future__ import annotations

import json
import time

from tests import servers
from tests.faults.balance import close_the_balance
from tests.faults.conftest import LONG
from tests.faults.scene import Pausable, Scene, Service
from tests.packets import now_ms

ROUNDS = 10 if LONG else 2
AWAY_MESSAGES = 20_000 if LONG else 1_000
TICKET_S = 3.0
"""With a store that answers it takes 0.02 s: room for a busy test machine, and none for a store's timeout."""


def test_killed_and_started_again_under_load(scene: Scene, broker: Pausable, influxd: Pausable) -> None:
    with scene.serving() as service:
        with scene.load() as load:
            for _ in range(ROUNDS):
                service.wait("some are stored", "stored", service.stat("stored") + 100)
                time.sleep(scene.rng.uniform(0.0, 0.5))  # the random moment is what is tested
                influxd.kill()
                service.wait("messages in the spool", "spooled", 1)
                influxd.start()
        verdict = close_the_balance(scene, service, broker.server, load)
    assert not verdict.lost_by_broker


def test_away_for_long(scene: Scene, broker: Pausable, influxd: Pausable) -> None:
    """The spool takes over and says so; tickets come as fast as ever; then it empties by itself while more comes."""
    with scene.serving() as service, scene.load() as load:
        service.wait("some are stored", "stored", 100)
        influxd.kill()
        service.wait("messages in the spool", "spooled", AWAY_MESSAGES, timeout_s=200)
        counts = service.stats()
        assert counts["store_away"]
        assert not counts["blocked_by"]
        assert counts["spool_bytes"] > 0
        assert any("series store is away" in reason for reason in service.not_ready())
        assert _seconds_to_ticket(service, broker.server, "in-the-outage") < TICKET_S
        influxd.start()
        servers.wait_until("the spool is empty", lambda: not service.stat("spooled"), timeout_s=60)
        load.finish()
        close_the_balance(scene, service, broker.server, load)


def test_we_are_killed_while_it_is_away(scene: Scene, broker: Pausable, influxd: Pausable) -> None:
    """The next process carries over what a dead one left in the spool, also when it starts without the store."""
    with scene.serving():
        pass
    influxd.kill()
    with scene.load() as load:
        for _ in range(ROUNDS):
            with scene.serving() as service:
                service.wait("messages in the spool", "spooled", service.stat("carried") + 200)
        with scene.serving() as service:
            assert service.stat("carried") >= 200 * ROUNDS
            assert _seconds_to_ticket(service, broker.server, "after-the-start") < TICKET_S
            influxd.start()
            servers.wait_until("the spool is empty", lambda: not service.stat("spooled"), timeout_s=60)
            load.finish()
            close_the_balance(scene, service, broker.server, load)


def _seconds_to_ticket(service: Service, broker: servers.Mosquitto, device: str) -> float:
    """From an alarm button to its ticket; the device is none of the load's."""
    event = {"id": "e-1", "ts": now_ms(), "code": "90", "table": "gbt24476", "state": "raised"}
    began = time.monotonic()
    broker.publish(f"tizhuang/v1/alone/elevator/{device}/event", json.dumps(event))
    service.api.wait_for_ticket(f"alone.{device}", timeout_s=30)
    return time.monotonic() - began
