"""Opening the records: the migrations make exactly the tables, and what is not ours is left as it was."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Barrier

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect, select, text, update

from core.errors import DataFolderError, StoreUnavailable
from storage import tables
from storage.records import address, migrate, open_records
from storage.register_file import checked
from storage.registry import Registry
from tests.storage.conftest import NEIGHBOURHOOD


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def database(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "records.sqlite") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_migrations_make_exactly_the_tables(url):
    open_records(url).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        uniques = [index for index in inspect(connection).get_indexes("incident") if index["unique"]]
    engine.dispose()
    assert [index["name"] for index in uniques] == [tables.one_open_incident.name], (
        "autogenerate overlooks partial ones"
    )


def test_the_invariant_is_the_databases_own(records):
    row = {
        "device_id": "here.lift", "part": "", "fault_group": "g", "rule_id": "r", "severity": "P1", "title_zh": "题",
        "title_en": "t", "needs_clear": False, "opened_device_ms": 1, "opened": 1, "late": False, "evidence": {},
    }  # fmt: skip
    with records.write() as connection:
        connection.execute(tables.incident.insert().values(**row))
        connection.execute(tables.incident.insert().values(**row, closed=2))
    with pytest.raises(Exception, match="UNIQUE constraint failed"), records.write() as connection:
        connection.execute(tables.incident.insert().values(**row))


def test_opening_again_changes_nothing(url, tmp_path):
    open_records(url).close()
    before = digests(tmp_path)
    open_records(url).close()
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    ("revision", "told"),
    [("0000", "newer version"), ("9999", "newer version"), ("'; DROP TABLE ticket", "newer version")],
)
def test_a_schema_of_another_version_is_left_alone(url, tmp_path, revision, told):
    """An unknown revision can only come from a version that we do not know yet."""
    open_records(url).close()
    with sqlite3.connect(tmp_path / "records.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
    connection.close()
    before = digests(tmp_path)
    with pytest.raises(DataFolderError, match=told) as caught:
        open_records(url)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataFolderError, match=told):
        migrate(url)
    assert digests(tmp_path) == before


def test_a_database_without_our_mark_is_left_alone(url, tmp_path):
    database(tmp_path, "CREATE TABLE diary (day TEXT)", "INSERT INTO diary VALUES ('dear')")
    before = digests(tmp_path)
    for act in (open_records, migrate):
        with pytest.raises(DataFolderError, match="older version or another program") as caught:
            act(url)
        assert "\n" not in str(caught.value)
    assert digests(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"dear diary " * 1_000, b"SQLite format 3\0" + b"\xff" * 4_096])
def test_a_file_that_is_no_database_is_left_alone(url, tmp_path, content):
    (tmp_path / "records.sqlite").write_bytes(content)
    if not content:
        open_records(url).close()  # an empty file is an empty database
        return
    before = digests(tmp_path)
    for act in (open_records, migrate):
        with pytest.raises(DataFolderError, match="is not a database") as caught:
            act(url)
        assert "\n" not in str(caught.value)
    assert digests(tmp_path) == before


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StoreUnavailable, match="unable to open database file"):
        open_records(address("", tmp_path / "nowhere"))


def test_migrate_makes_a_new_database_and_leaves_a_current_one(url, tmp_path):
    assert migrate(url) == (None, "0002")
    before = digests(tmp_path)
    assert migrate(url) == ("0002", "0002")
    assert digests(tmp_path) == before


def test_a_write_that_fails_is_rolled_back_and_the_next_one_works(records):
    def fail() -> None:
        with records.write() as connection:
            connection.execute(update(tables.device).values(zh="x"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with records.read() as connection:
        assert "x" not in connection.execute(select(tables.device.c.zh)).scalars().all()
    with records.write() as connection:
        connection.execute(update(tables.device).values(zh="y"))


def test_writers_wait_for_each_other_and_never_fail_half_way(url, records):
    """Read, then write: SQLite refuses that between two deferred transactions, so ours take the lock at once."""
    pools = [records, records, open_records(url), open_records(url)]
    start = Barrier(len(pools))

    def count_up(number: int) -> None:
        start.wait()
        for _ in range(15):
            with pools[number].write() as connection:
                seen = connection.execute(select(tables.site.c.latitude).where(tables.site.c.id == "here")).scalar_one()
                connection.execute(update(tables.site).values(latitude=(seen or 0) + 1))

    with ThreadPoolExecutor(len(pools)) as threads:
        for done in [threads.submit(count_up, number) for number in range(len(pools))]:
            done.result()
    for pool in pools[2:]:
        pool.close()
    with records.read() as connection:
        assert connection.execute(select(tables.site.c.latitude)).scalar_one() == 15 * len(pools)


def test_a_reader_sees_one_moment_while_others_write(any_url):
    records = open_records(any_url)
    Registry(records).register(checked(NEIGHBOURHOOD), now=1)
    query = select(tables.device.c.zh).where(tables.device.c.id == "here.lift")
    with records.read() as connection:
        before = connection.execute(query).scalar_one()
        with records.write() as writer:
            writer.execute(update(tables.device).values(zh="other"))
        assert connection.execute(query).scalar_one() == before
    with records.read() as connection:
        assert connection.execute(query).scalar_one() == "other"
    records.close()


def test_two_processes_may_make_the_schema_at_the_same_moment(empty_url):
    start = Barrier(4)

    def make(_number: int) -> None:
        start.wait()
        open_records(empty_url).close()

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(make, number) for number in range(4)]:
            done.result()
    assert migrate(empty_url) == ("0002", "0002")


def test_commits_reach_the_disk(records):
    with records.read() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2, "FULL"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
