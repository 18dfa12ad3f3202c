"""Which series store the settings ask for. A driver is one file and one line here."""

from __future__ import annotations

from pathlib import Path

from core.errors import SettingsError
from core.settings import Influx
from storage.duckdb import DuckDbSeries
from storage.series import SeriesStore


def open_series(influx: Influx, folder: Path) -> SeriesStore:
    """The store, opened. Raises SettingsError, DataFolderError or StoreUnavailable."""
    if influx.url:
        raise SettingsError("influx.url: the InfluxDB driver is not part of this version; leave it empty for DuckDB")
    return DuckDbSeries(folder / "series.duckdb")
