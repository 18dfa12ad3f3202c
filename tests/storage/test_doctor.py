"""`tizhuang doctor` at real databases: DuckDB and SQLite files, and InfluxDB with and without passwords."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from core.doctor import Finding, Level
from core.reading import Batch, Reading
from core.settings import Settings, load
from storage.doctor import check_store
from storage.drivers import open_series
from storage.folder import held
from storage.records import address, open_records
from tests import servers
from tests.conftest import require
from tests.servers import wait_until

HOUR_MS = 3_600_000
_databases = count(1)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def examined(settings: Settings, *, off_ms: int = 0) -> dict[str, Finding]:
    """What was found, by check. `off_ms`: our own clock is wrong."""
    return {one.check: one for one in check_store(settings, lambda: now_ms() + off_ms)}


def levels(found: dict[str, Finding]) -> dict[str, str]:
    return {check: str(one.level) for check, one in found.items()}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(data={"dir": tmp_path / "data"})


def heard(settings: Settings, *devices: tuple[str, int]) -> None:
    """Each device said something just now, by a clock that is behind by so many ms."""
    store = open_series(settings)
    rx = now_ms()
    readings = [Reading(f"here.{name}", "elevator", "", rx - late, rx, 1, {"floor": 1}) for name, late in devices]
    store.write(Batch(tuple(readings)))
    store.close()


class TestEmbedded:
    def test_nothing_there_yet_is_fine_and_stays_so(self, settings: Settings):
        assert levels(examined(settings)) == {
            "data.folder": "ok",
            "data.disk": "ok",
            "data.records": "ok",
            "series.duckdb": "ok",
            "devices.clock": "unknown",
            "host.clock": "unknown",
        }
        assert not settings.data.dir.exists()

    def test_databases_in_order_and_devices_on_time(self, settings: Settings):
        settings.data.dir.mkdir()
        open_records(address("", settings.data.dir)).close()
        heard(settings, ("lift-1", 400), ("lift-2", -2_000), ("lift-3", 59_000))
        found = examined(settings)
        assert set(levels(found).values()) == {"ok", "unknown"}
        assert "3 devices" in found["series.duckdb"].found
        assert "all within 60 s of ours (median 0.4 s)" in found["devices.clock"].found
        assert "timedatectl" in found["host.clock"].mend

    def test_devices_whose_clock_is_off_are_named_worst_first(self, settings: Settings):
        settings.data.dir.mkdir()
        heard(settings, *((f"lift-{number}", number * 61_000) for number in range(7)), ("ahead", -4 * HOUR_MS))
        found = examined(settings)["devices.clock"]
        assert found.level is Level.WARNING
        assert "7 of 8 devices" in found.found
        named = [word for word in found.found.split() if word.startswith("here.")]
        assert named == ["here.ahead", "here.lift-6", "here.lift-5", "here.lift-4", "here.lift-3"]
        assert "here.ahead 4 h ahead, here.lift-6 366 s behind" in found.found

    def test_a_running_service_keeps_its_files(self, settings: Settings):
        settings.data.dir.mkdir()
        heard(settings, ("lift-1", 0))
        with held(settings.data.dir):
            found = examined(settings)
        assert str(os.getpid()) in found["data.folder"].found
        assert "running service" in found["series.duckdb"].found
        assert found["devices.clock"].level is Level.UNKNOWN
        assert "stop the service" in found["devices.clock"].mend

    def test_files_that_are_not_ours_or_broken(self, settings: Settings):
        settings.data.dir.mkdir()
        (settings.data.dir / "series.duckdb").write_bytes(b"no database" * 1_000)
        with sqlite3.connect(settings.data.dir / "records.sqlite") as connection:
            connection.execute("CREATE TABLE somebody (id)")
        connection.close()
        found = examined(settings)
        assert found["series.duckdb"].level is Level.LOST
        assert found["data.records"].level is Level.LOST
        assert "another program" in found["data.records"].found

    def test_records_that_cannot_be_written(self, settings: Settings):
        settings.data.dir.mkdir()
        open_records(address("", settings.data.dir)).close()
        with sqlite3.connect(settings.data.dir / "records.sqlite", isolation_level=None) as holder:
            holder.execute("BEGIN IMMEDIATE")
            found = examined(settings)["data.records"]
        holder.close()
        assert found.level is Level.LOST
        assert "locked" in found.found

    def test_a_records_server_that_is_not_there(self, settings: Settings, tmp_path: Path):
        nowhere = load(data={"dir": tmp_path}, database={"url": f"sqlite:///{tmp_path}/no/such/folder/records"})
        assert examined(nowhere)["data.records"].level is Level.LOST

    def test_a_folder_that_is_none(self, tmp_path: Path):
        (tmp_path / "data").write_text("a file")
        found = examined(load(data={"dir": tmp_path / "data"}))
        assert found["data.folder"].level is Level.LOST
        assert "data.dir" in found["data.folder"].mend

    @pytest.mark.parametrize(("disks", "level"), [(2, Level.WARNING), (30, Level.LOST)])
    def test_a_spool_that_is_larger_than_the_disk(self, tmp_path: Path, disks: int, level: Level):
        limit_mb = disks * shutil.disk_usage(tmp_path).free // 1_000_000
        found = examined(load(data={"dir": tmp_path}, spool={"limit_mb": limit_mb}))["data.disk"]
        assert found.level is level
        assert "spool.limit_mb" in found.mend


@pytest.mark.real("influxdb")
class TestInflux:
    @pytest.fixture
    def settings(self, influx: servers.Influx, tmp_path: Path) -> Settings:
        """A database of its own on the server that all tests share."""
        return self.of(influx.url, tmp_path, bucket=f"doctor-{next(_databases)}")

    @staticmethod
    def of(url: str, tmp_path: Path, **influx: str) -> Settings:
        return load(data={"dir": tmp_path / "data"}, influx={"url": url, **influx})

    def test_a_fresh_server_gets_its_databases_and_keeps_no_probe(self, settings: Settings):
        found = examined(settings)
        wanted = ("series.reach", "series.clock", "series.databases", "series.rights", "series.retention")
        assert {found[check].level for check in wanted} == {Level.OK}
        assert "1.6.7" in found["series.reach"].found
        assert "written by /write" in found["series.reach"].found
        assert "made just now" in found["series.databases"].found
        assert "365 days" in found["series.retention"].found
        for database in (settings.influx.bucket, f"{settings.influx.bucket}_1m", f"{settings.influx.bucket}_1h"):
            assert asked(settings.influx.url, "SHOW SERIES", database=database) == []
        assert "made just now" not in examined(settings)["series.databases"].found

    def test_devices_and_their_clocks(self, settings: Settings):
        heard(settings, ("lift-1", 0), ("lift-2", HOUR_MS))
        found = examined(settings)["devices.clock"]
        assert found.level is Level.WARNING
        assert "1 of 2 devices" in found.found
        assert "here.lift-2 3600 s behind" in found.found

    def test_clocks_that_disagree(self, settings: Settings):
        fast, slow = (examined(settings, off_ms=off)["series.clock"] for off in (HOUR_MS, -HOUR_MS))
        assert (fast.level, slow.level) == (Level.WARNING, Level.WARNING)
        assert "behind ours" in fast.found
        assert "ahead of ours" in slow.found

    def test_data_that_is_dropped_too_early_or_never(self, settings: Settings):
        bucket, url = settings.influx.bucket, settings.influx.url
        asked(url, f'CREATE DATABASE "{bucket}_1h"')
        found = examined(settings)["series.retention"]
        assert found.level is Level.WARNING
        assert "1h for ever instead of 3650 days" in found.found
        asked(url, f'ALTER RETENTION POLICY "autogen" ON "{bucket}" DURATION 7d')
        found = examined(settings)["series.retention"]
        assert found.level is Level.LOST
        assert f"{bucket} 7 days instead of 30 days" in found.found
        for statement in found.mend.split("; ")[:-1]:
            asked(url, statement)
        assert examined(settings)["series.retention"].level is Level.OK

    def test_a_server_that_is_away_or_another_one(self, tmp_path: Path):
        away = examined(self.of(f"http://127.0.0.1:{servers.free_port()}", tmp_path))
        assert away["series.reach"].level is Level.LOST
        assert "wait in the spool" in away["series.reach"].found
        assert away["devices.clock"].level is Level.UNKNOWN
        port = servers.free_port()
        pages = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
        with servers.process(pages, log=tmp_path / "log"):
            wait_until("a server of pages", lambda: servers.answers(port))
            other = examined(self.of(f"http://127.0.0.1:{port}", tmp_path))
        assert other["series.reach"].level is Level.LOST
        assert "does not answer as InfluxDB does" in other["series.reach"].found


@pytest.mark.real("influxdb")
class TestInfluxWithPasswords:
    @pytest.fixture(scope="class")
    @classmethod
    def guarded(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        """A server that asks who we are; `admin` may do everything, `reader` may read `there`, `writer` all of it."""
        require("influxd")
        with servers.influxd(tmp_path_factory.mktemp("guarded"), auth=True) as server:
            asked(server.url, "CREATE USER admin WITH PASSWORD 'a' WITH ALL PRIVILEGES")
            url = server.url.replace("//", "//admin:a@")
            for name in ("reader", "writer"):
                asked(url, f"CREATE USER {name} WITH PASSWORD 'x'")
            for database in ("there", "there_1m", "there_1h"):
                asked(url, f'CREATE DATABASE "{database}"')
                asked(url, f'GRANT READ ON "{database}" TO reader')
                asked(url, f'GRANT ALL ON "{database}" TO writer')
            yield f"127.0.0.1:{server.port}"

    @staticmethod
    def as_user(guarded: str, name: str, tmp_path: Path, bucket: str = "there") -> dict[str, Finding]:
        settings = TestInflux.of(f"http://{name}@{guarded}" if name else f"http://{guarded}", tmp_path, bucket=bucket)
        return examined(settings)

    @pytest.mark.parametrize("name", ["", "admin:wrong"])
    def test_who_may_not_come_in(self, guarded: str, tmp_path: Path, name: str):
        found = self.as_user(guarded, name, tmp_path)["series.databases"]
        assert found.level is Level.LOST
        assert "influx.token, or user and password in influx.url" in found.mend
        assert "wrong" not in str(found)

    def test_who_may_only_read(self, guarded: str, tmp_path: Path):
        found = self.as_user(guarded, "reader:x", tmp_path)
        assert found["series.rights"].level is Level.LOST
        assert "GRANT ALL" in found["series.rights"].mend

    def test_who_may_write_and_not_make_what_is_missing(self, guarded: str, tmp_path: Path):
        assert self.as_user(guarded, "writer:x", tmp_path)["series.rights"].level is Level.OK
        found = self.as_user(guarded, "writer:x", tmp_path, bucket="elsewhere")["series.databases"]
        assert found.level is Level.LOST
        assert "elsewhere_1h" in found.found

    def test_who_may_do_everything(self, guarded: str, tmp_path: Path):
        found = self.as_user(guarded, "admin:a", tmp_path, bucket="made")
        assert "made just now" in found["series.databases"].found
        assert found["series.rights"].level is Level.OK
        assert "stays" not in found["series.rights"].found


def asked(url: str, statement: str, *, database: str = "") -> list[object]:
    """The rows that InfluxDB answers with, asked without our driver."""
    answer = httpx.post(f"{url}/query", data={"q": statement, "db": database})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert "error" not in results[0], results
    return [row for result in results for series in result.get("series", []) for row in series["values"]]
