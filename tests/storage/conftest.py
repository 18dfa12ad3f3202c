"""A fresh records database for each test, with a few devices in it. On SQLite, or on PostgreSQL too."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from storage.records import Records, address, open_records
from storage.register_file import checked
from storage.registry import Registry
from storage.tables import metadata
from tests import servers
from tests.conftest import require

NEIGHBOURHOOD = {
    "sites": [{"id": "here", "zh": "这里", "en": "Here"}],
    "contractors": [{"id": "east", "zh": "东方", "en": "East"}],
    "devices": [
        {"site": "here", "id": "lift", "kind": "elevator", "zh": "梯", "en": "Lift", "contractor": "east"},
        {"site": "here", "id": "pile", "kind": "charger", "zh": "桩", "en": "Pile"},
    ],
}


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """One PostgreSQL for the whole run."""
    for name in ("postgres", "initdb", "createdb", "pg_isready"):
        require(name)
    with tempfile.TemporaryDirectory(prefix="tizhuang-") as folder, servers.postgres(Path(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def shared_url(postgres: servers.Postgres) -> str:
    """A database with our schema, in whatever state the last test left it."""
    url = postgres.create("ours")
    open_records(url).close()
    return url


POSTGRES = pytest.param("postgresql", marks=pytest.mark.real("postgresql"))


@pytest.fixture(params=["sqlite", POSTGRES])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without rows, of each kind; `def url(any_url): return any_url` runs a file of tests on both."""
    if request.param == "sqlite":
        return address("", tmp_path)
    shared: str = request.getfixturevalue("shared_url")
    engine = create_engine(shared)
    names = ", ".join(metadata.tables)
    with engine.begin() as connection:
        connection.execute(text("DROP FUNCTION IF EXISTS refuse CASCADE"))
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))
    engine.dispose()
    return shared


@pytest.fixture(params=["sqlite", POSTGRES])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database without our schema."""
    if request.param == "sqlite":
        return address("", tmp_path)
    made: str = request.getfixturevalue("postgres").create(f"test{next(_numbers)}")
    return made


_numbers = itertools.count()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return address("", tmp_path)


@pytest.fixture
def records(url: str) -> Iterator[Records]:
    opened = open_records(url)
    Registry(opened).register(checked(NEIGHBOURHOOD), now=1)
    yield opened
    opened.close()
