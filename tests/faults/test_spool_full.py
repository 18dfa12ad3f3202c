"""The store is away and the spool is full: nothing is acknowledged, nothing is lost, and it goes on by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests import servers
from tests.conftest import IN_CI
from tests.faults.balance import close_the_balance
from tests.faults.scene import Pausable, Scene

LIMIT_MB = 1
RATE = 1_000.0
MOST_IN_FLIGHT = 3_500
"""Fewer than come while nothing is acknowledged: the broker has the rest."""


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own for the spool."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={LIMIT_MB}m,mode=0700", "tizhuang-test", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        why = f"cannot mount a small tmpfs: {done.stderr.strip()}"
        if IN_CI and os.geteuid() == 0:
            pytest.fail(why)
        pytest.skip(f"{why}; run as root, and allow the container to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_the_limit_of_the_settings(scene: Scene, broker: Pausable, influxd: Pausable) -> None:
    _fill_and_recover(replace(scene, env={"TIZHUANG_SPOOL__LIMIT_MB": str(LIMIT_MB)}), broker, influxd)


def test_a_full_disk(scene: Scene, broker: Pausable, influxd: Pausable) -> None:
    with small_disk(scene.data / "spool"):
        _fill_and_recover(scene, broker, influxd)


def _fill_and_recover(scene: Scene, broker: Pausable, influxd: Pausable) -> None:
    with scene.serving() as service, scene.load(rate=RATE, devices=500, noise=600) as load:
        service.wait("some are stored", "stored", 100)
        influxd.kill()
        servers.wait_until("the spool is full", lambda: service.stat("blocked_by"), timeout_s=60)
        full = service.stats()
        assert "spool" in full["blocked_by"]
        assert full["spooled"] > 0
        assert full["spool_bytes"] <= LIMIT_MB * 1_048_576
        assert any("spool" in reason for reason in service.not_ready())
        memory = service.resident_mb()

        more = load.ledger.acked + 4_000
        servers.wait_until("the broker takes more", lambda: load.ledger.acked >= more)
        later = service.stats()
        assert (later["acked"], later["spooled"]) == (full["acked"], full["spooled"]), "acknowledged, and not durable"
        assert later["blocked_by"]
        assert later["in_flight"] < MOST_IN_FLIGHT
        assert service.resident_mb() < memory + 30

        influxd.start()
        servers.wait_until("it goes on", lambda: not service.stat("blocked_by"), timeout_s=60)
        load.finish()
        close_the_balance(scene, service, broker.server, load)
