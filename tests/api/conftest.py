"""A seeded house and a client of its API, on real databases and a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api import seed


@pytest.fixture
def home(tmp_path: Path) -> Iterator[seed.House]:
    """Registered and measured; no tickets yet."""
    with seed.house(tmp_path) as made:
        seed.register(made.services)
        seed.measure(made.services)
        yield made


@pytest.fixture
def server(home: seed.House) -> Iterator[seed.Served]:
    """The running app."""
    with seed.served(home.services) as served:
        yield served


@pytest.fixture
def web(server: seed.Served) -> Iterator[httpx.Client]:
    """A client that behaves like a program: no cookies, no Origin."""
    with httpx.Client(base_url=server.address, timeout=10) as client:
        yield client


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The same, shared by all tests that change nothing."""
    with seed.house(tmp_path_factory.mktemp("calm")) as made:
        seed.register(made.services)
        seed.measure(made.services)
        with seed.served(made.services) as served, httpx.Client(base_url=served.address, timeout=10) as client:
            yield client
