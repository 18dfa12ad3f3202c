"""The production driver against a real server: the contract of all drivers, and what only a server can do.

`TEST_INFLUX_URL` (with `TEST_INFLUX_TOKEN`, `TEST_INFLUX_ORG`) names a server of another version to be held to the same
contract; `deploy/compose.yaml` brings one up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

import pytest
from pydantic import SecretStr

from core.settings import Influx
from storage.influx import InfluxSeries
from storage.series import SeriesStore
from tests import servers
from tests.storage.rollup_contract import RollUpContract
from tests.storage.series_contract import Reopen, SeriesContract

_databases = count(1)


def other_server() -> Influx | None:
    """The server that the environment names."""
    url = os.environ.get("TEST_INFLUX_URL")
    if not url:
        return None
    token, org = os.environ.get("TEST_INFLUX_TOKEN", ""), os.environ.get("TEST_INFLUX_ORG", "tizhuang")
    return Influx(url=url, token=SecretStr(token), org=org)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Influx:
    """The server under test: the one that was named, else Debian's."""
    named = other_server()
    if named is not None:
        return named
    influx: servers.Influx = request.getfixturevalue("influx")
    return Influx(url=influx.url)


def database_of(server: Influx) -> Influx:
    """A database of its own on the server."""
    return server.model_copy(update={"bucket": f"test-{os.getpid()}-{next(_databases)}"})


def opened(settings: Influx) -> InfluxSeries:
    # The contract plays in a fixed week of 2026: nothing is to be dropped for its age.
    return InfluxSeries(settings, raw_days=36_500, minute_days=36_500, hour_days=36_500)


class TestContract(SeriesContract, RollUpContract):
    """One database for the whole contract, as one server keeps all devices."""

    keeps_late = False
    current: SeriesStore | None = None

    @pytest.fixture(scope="class")
    @classmethod
    def reopen(cls, server: Influx) -> Iterator[Reopen]:
        settings = database_of(server)

        def reopen() -> SeriesStore:
            if cls.current is not None:
                cls.current.close()
            store = cls.current = opened(settings)
            return store

        reopen()
        yield reopen
        if cls.current is not None:
            cls.current.close()
        cls.current = None

    @pytest.fixture
    def store(self, reopen: Reopen) -> SeriesStore:
        assert self.current is not None
        return self.current
