"""History of both series stores: the contract, and a DuckDB file that several processes read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import DataFolderError
from core.settings import Data, Influx, Settings
from storage import influx_history
from storage.drivers import open_history
from storage.duckdb import DuckDbSeries
from storage.duckdb_history import DuckDbHistory
from storage.history import Item
from storage.influx import InfluxSeries
from storage.series import Horizon, SeriesStore
from tests import servers
from tests.storage.history_contract import HistoryContract
from tests.storage.series_contract import T, new_device, reading, write


class TestDuckDb(HistoryContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeriesStore]:
        opened = DuckDbSeries(tmp_path_factory.mktemp("history") / "series.duckdb")
        yield opened
        opened.close()


class TestInflux(HistoryContract):
    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, influx: servers.Influx) -> Iterator[SeriesStore]:
        settings = Influx(url=influx.url, bucket=f"history-{os.getpid()}")
        opened = InfluxSeries(settings, raw_days=36_500, minute_days=36_500, hour_days=36_500)
        yield opened
        opened.close()


def all_of(history: DuckDbHistory) -> list[Item]:
    return list(history.history(0, 2**62))


@pytest.mark.parametrize("rows", [1, 7, 1_000])
def test_slices_of_any_size_give_the_same(tmp_path: Path, rows: int):
    path, device = tmp_path / "series.duckdb", new_device()
    store = DuckDbSeries(path)
    write(store, *(reading(device, T + ms * 700, {"floor": 1 + ms % 3}) for ms in range(400)))
    write(store, *(reading(device, T + ms * 7_000_000, {"online": True}, rx=T + ms * 7_000_000 + 5) for ms in range(9)))
    expected = list(store.history(0, 2**62))
    store.close()
    history = DuckDbHistory(path, slice_rows=rows)
    assert all_of(history) == expected
    assert len(expected) == 409
    history.close()


@pytest.mark.parametrize("rows", [3, 50])
def test_pages_of_any_size_give_the_same(influx: servers.Influx, rows: int):
    settings = Influx(url=influx.url, bucket=f"pages-{os.getpid()}-{rows}")
    store = InfluxSeries(settings, raw_days=36_500, minute_days=36_500, hour_days=36_500)
    items = [reading(new_device(), T + ms // 5, {"floor": 1}) for ms in range(40)]
    write(store, *items)
    expected = list(store.history(T, T + 100))
    raw, hours = settings.bucket, f"{settings.bucket}_1h"
    paged = influx_history.read(store._query, raw, hours, T, T + 100, (None, None, None), Horizon(), rows)
    assert list(paged) == expected == items
    store.close()


def test_several_processes_read_one_file_and_none_while_it_is_written(tmp_path: Path):
    path = tmp_path / "series.duckdb"
    store = DuckDbSeries(path)
    write(store, reading(new_device(), T, {"floor": 1}))
    words = f"len(list(DuckDbHistory(Path({str(path)!r})).history(0, 2**62)))"
    program = f"from pathlib import Path; from storage.duckdb_history import DuckDbHistory; print({words})"
    command = [sys.executable, "-c", program]
    refused = subprocess.run(command, cwd=servers.ROOT, capture_output=True, text=True, check=False)
    assert "a running service holds it alone" in refused.stderr
    store.close()
    history = DuckDbHistory(path)
    other = subprocess.run(command, cwd=servers.ROOT, capture_output=True, text=True, check=True)
    assert int(other.stdout) == len(all_of(history)) == 1
    history.close()


def test_a_folder_without_series(tmp_path: Path):
    with pytest.raises(DataFolderError, match="no series are stored yet"):
        open_history(Settings(data=Data(dir=tmp_path)))
