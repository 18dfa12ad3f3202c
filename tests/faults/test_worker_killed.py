"""kill -9 of our own process, at moments that nobody chose."""

from __future__ import annotations

import time

from tests.faults.balance import close_the_balance
from tests.faults.conftest import LONG
from tests.faults.scene import Pausable, Scene

KILLS = 50 if LONG else 4
TRAPPED = 3 if LONG else 0
"""Rules that are pending for 20 s, over several kills."""


def test_killed_again_and_again_under_load(each_scene: Scene, broker: Pausable) -> None:
    scene = each_scene
    with scene.serving():
        pass  # from now on the broker keeps a session for us
    with scene.load(trapped=TRAPPED, faults=60, fault_every=50) as load:
        for number in range(KILLS):
            if number % 4 == 3:  # while it is starting, or has just begun to take what waits
                scene.start_and_kill(scene.rng.uniform(0.3, 2.0))
                continue
            with scene.serving() as service:
                service.wait("messages come", "received", 1)
                time.sleep(scene.rng.uniform(0.0, 1.0))  # the random moment is what is tested
                service.kill()
    with scene.serving() as service:
        verdict = close_the_balance(scene, service, broker.server, load)
    assert verdict.acked > KILLS * 100
    assert not verdict.lost_by_broker
