"""Fixtures for real servers. A test that needs one says so by using it; without the server it is skipped, loudly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import servers

IN_CI = os.environ.get("CI") == "true"
_missing: set[str] = set()

settings.register_profile("tizhuang", deadline=None)  # speed is measured by `make bench`, not on a busy test machine
settings.load_profile("tizhuang")


def require(name: str) -> str:
    """The path of a server's program; skips the test where it is missing, fails it in CI."""
    found = servers.program(name)
    if found is None:
        _missing.add(name)
        if IN_CI:
            pytest.fail(f"{name} is not installed, and CI skips nothing; install it with: {servers.ENABLE}")
        pytest.skip(f"{name} is not installed; enable this test with: {servers.ENABLE}")
    return found


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[servers.Mosquitto]:
    """A fresh Mosquitto for one test."""
    require("mosquitto")
    require("mosquitto_pub")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    with servers.mosquitto(folder) as broker:
        yield broker


@pytest.fixture(scope="session")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Influx]:
    """One InfluxDB for the whole run: tests use databases (or devices) of their own."""
    require("influxd")
    with servers.influxd(tmp_path_factory.mktemp("influx")) as server:
        yield server


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's Chromium."""
    return require("chromium")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _missing:
        terminalreporter.write_sep("=", "real servers that were missing", yellow=True)
        terminalreporter.write_line(f"not installed: {', '.join(sorted(_missing))}")
        terminalreporter.write_line(f"their tests did not run; enable them with: {servers.ENABLE}")
