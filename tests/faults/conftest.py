"""Fixtures of the fault suite. `make faults` runs the long version, `make test` a short one of every scenario."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import servers
from tests.conftest import require
from tests.faults.scene import Pausable, Scene

LONG = os.environ.get("TIZHUANG_FAULTS") == "long"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A long scenario may take longer than other tests."""
    here = str(Path(__file__).parent)
    for item in items:
        if LONG and str(item.path).startswith(here):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Pausable]:
    """Mosquitto with persistence on; it writes its memory to disk every second."""
    require("mosquitto")
    require("mosquitto_pub")
    folder, port = tmp_path / "mosquitto", servers.free_port()
    folder.mkdir()
    with ExitStack() as stack:
        made = Pausable(lambda: servers.mosquitto(folder, port=port, persistence=True, autosave_s=1))
        stack.callback(made.close)
        yield made


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Pausable]:
    """InfluxDB 1.6.7 with a folder of its own."""
    require("influxd")
    folder, port = tmp_path / "influxd", servers.free_port()
    folder.mkdir()
    with ExitStack() as stack:
        made = Pausable(lambda: servers.influxd(folder, port=port))
        stack.callback(made.close)
        yield made


@pytest.fixture
def scene(tmp_path: Path, broker: Pausable, influxd: Pausable) -> Scene:
    """An installation with InfluxDB."""
    return Scene(tmp_path, broker.server.url, influx_url=influxd.server.url)


@pytest.fixture(params=["duckdb", "influx"] if LONG else ["influx"])
def any_scene(request: pytest.FixtureRequest, tmp_path: Path, broker: Pausable) -> Scene:
    """An installation with each of the two stores, in the long version."""
    return _with_store(request, tmp_path, broker)


@pytest.fixture(params=["duckdb", "influx"])
def each_scene(request: pytest.FixtureRequest, tmp_path: Path, broker: Pausable) -> Scene:
    """An installation with each of the two stores, always."""
    return _with_store(request, tmp_path, broker)


def _with_store(request: pytest.FixtureRequest, folder: Path, broker: Pausable) -> Scene:
    if request.param == "duckdb":
        return Scene(folder, broker.server.url)
    influxd: Pausable = request.getfixturevalue("influxd")
    return Scene(folder, broker.server.url, influx_url=influxd.server.url)
