"""Somebody sets our wall clock back while messages come. The devices' clocks are right all the time."""

from __future__ import annotations

import mmap
import sqlite3
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests import servers
from tests.conftest import IN_CI
from tests.faults.balance import close_the_balance
from tests.faults.scene import Pausable, Scene
from tests.packets import now_ms

A_LITTLE_S = 240
"""Devices are then ahead of us by less than the five minutes that we believe."""
MUCH_S = 3_600


class Clock:
    """The wall clock of processes that run with `env`."""

    def __init__(self, folder: Path, compiler: str) -> None:
        library, shift = folder / "clock_shim.so", folder / "clock_shift"
        source = Path(__file__).with_name("clock_shim.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True, timeout=60)
        shift.write_bytes(bytes(8))
        self.env = {"LD_PRELOAD": str(library), "CLOCK_SHIM_FILE": str(shift)}
        self._path = shift

    def set_back(self, seconds: int) -> None:
        """From now on it shows so much less than the true time."""
        with self._path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shift:
            shift[:] = struct.pack("=q", -seconds)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A C compiler is all that it needs."""
    compiler = servers.program("cc")
    if compiler is None:
        if IN_CI:
            pytest.fail("no C compiler (cc): the clock cannot be shifted, and CI skips nothing")
        pytest.skip("no C compiler (cc): the clock cannot be shifted; on Debian: apt-get install gcc libc6-dev")
    return Clock(tmp_path, compiler)


@pytest.mark.parametrize("seconds", [A_LITTLE_S, MUCH_S], ids=["believed", "not-believed"])
def test_set_back_and_set_right(any_scene: Scene, broker: Pausable, clock: Clock, seconds: int) -> None:
    scene = replace(any_scene, env=clock.env)
    with scene.serving() as service, scene.load() as load:
        for shift in (0, seconds, 0):
            clock.set_back(shift)
            came, tickets = service.stat("received"), service.stat("open_tickets")
            service.wait("messages come", "received", came + 600)
            service.wait("tickets come", "open_tickets", tickets + 2)
            seen = _newest_ticket(scene)
            assert abs(seen + shift * 1_000 - now_ms()) < 60_000, "the service does not see the shifted clock"
        load.finish()
        close_the_balance(scene, service, broker.server, load, clockless=seconds == MUCH_S)


def test_set_back_and_killed(any_scene: Scene, broker: Pausable, clock: Clock) -> None:
    """The next process starts before the last one did."""
    scene = replace(any_scene, env=clock.env)
    with scene.serving():
        pass
    with scene.load() as load:
        for seconds in (0, A_LITTLE_S, 0):
            clock.set_back(seconds)
            with scene.serving() as service:
                service.wait("messages come", "received", 400)
        with scene.serving() as service:
            load.finish()
            close_the_balance(scene, service, broker.server, load)


def _newest_ticket(scene: Scene) -> int:
    """When it was written, by the clock of the service."""
    with sqlite3.connect(f"file:{scene.data / 'records.sqlite'}?mode=ro", uri=True, timeout=10) as connection:
        query = "SELECT created FROM ticket ORDER BY id DESC LIMIT 1"
        return int(connection.execute(query).fetchone()[0])
