"""The broker stops, dies and comes back. With persistence on, what it really promises is what we demand.

Mosquitto writes its memory to disk at a clean stop, on SIGUSR1 and every `autosave_interval` seconds (default 1800),
and not before it sends a PUBACK. So a clean stop loses nothing; after kill -9 it has forgotten what it acknowledged
since the last time and had not delivered. What it delivered to us is ours, whatever becomes of the broker.
"""

from __future__ import annotations

import signal
import time

from tests import servers
from tests.faults.balance import close_the_balance
from tests.faults.conftest import LONG
from tests.faults.scene import Pausable, Scene
from tests.packets import now_ms

ROUNDS = 10 if LONG else 1
AUTOSAVE_S = 3.0
"""The fixture says 1; Mosquitto looks at whole seconds, and writing takes a moment."""


def test_stopped_and_started_again_under_load(any_scene: Scene, broker: Pausable) -> None:
    scene = any_scene
    with scene.serving() as service:
        with scene.load() as load:
            for _ in range(ROUNDS):
                before = service.stat("received")
                service.wait("messages come", "received", before + 200)
                broker.stop()
                servers.wait_until("the service notices", lambda: not service.stat("connected"))
                broker.start()
        verdict = close_the_balance(scene, service, broker.server, load)
    assert load.reconnects >= ROUNDS
    assert not verdict.lost_by_broker


def test_stopped_and_started_again_while_we_are_away(any_scene: Scene, broker: Pausable) -> None:
    """The queue is on the broker's disk only."""
    scene = any_scene
    with scene.serving():
        pass
    with scene.load(messages=2_000, rate=None) as load:
        servers.wait_until("all acknowledged", lambda: load.ledger.acked == 2_000)
    broker.stop()
    broker.start()
    with scene.serving() as service:
        verdict = close_the_balance(scene, service, broker.server, load)
    assert verdict.stats["received"] > 2_000


def test_killed_after_it_wrote_its_memory(scene: Scene, broker: Pausable) -> None:
    with scene.serving():
        pass
    with scene.load(messages=2_000, rate=None) as load:
        servers.wait_until("all acknowledged", lambda: load.ledger.acked == 2_000)
    written = scene.folder / "mosquitto" / "mosquitto.db"
    asked_ms = now_ms()
    broker.child.send_signal(signal.SIGUSR1)
    servers.wait_until("written", lambda: written.exists() and written.stat().st_mtime_ns // 1_000_000 > asked_ms)
    broker.kill()
    broker.start()
    with scene.serving() as service:
        close_the_balance(scene, service, broker.server, load)


def test_killed_under_load(any_scene: Scene, broker: Pausable) -> None:
    """Only what the broker acknowledged in its last seconds may be gone, and only if it had not delivered it."""
    scene = any_scene
    forgiven: set[int] = set()
    with scene.serving() as service:
        with scene.load() as load:
            for _ in range(ROUNDS):
                service.wait("messages come", "received", service.stat("received") + 200)
                time.sleep(AUTOSAVE_S)  # so that the session itself is on the broker's disk
                killed_ms = now_ms()
                broker.kill()
                saved = load.ledger.last_acked_before(killed_ms - int(AUTOSAVE_S * 1000))
                forgiven |= set(range(saved + 1, load.ledger.last_acked_before(now_ms()) + 1))
                servers.wait_until("the service notices", lambda: not service.stat("connected"))
                broker.start()
        verdict = close_the_balance(scene, service, broker.server, load, forgiven=forgiven)
    print(
        f"kill -9 of Mosquitto, {ROUNDS} times: {len(verdict.lost_by_broker)} of {verdict.acked} acknowledged messages"
    )
