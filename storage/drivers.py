"""Which series store the settings ask for. A driver is one file and one line here."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing

from core.settings import Settings
from storage.duckdb import DuckDbSeries
from storage.duckdb_history import DuckDbHistory
from storage.history import History
from storage.series import SeriesStore


def open_series(settings: Settings) -> SeriesStore:
    """The store, opened; an InfluxDB that is away is opened later. Raises DataFolderError or StoreUnavailable."""
    if not settings.influx.url:
        return DuckDbSeries(settings.data.dir / "series.duckdb")
    # The client library takes 40 MB: not in a process that does without it.
    from storage.influx import InfluxSeries  # noqa: PLC0415

    keep = settings.series
    return InfluxSeries(settings.influx, raw_days=keep.raw_days, minute_days=keep.minute_days, hour_days=keep.hour_days)


def open_history(settings: Settings) -> AbstractContextManager[History]:
    """What the store holds, to be read only; several processes may do so. Raises DataFolderError or StoreUnavailable.

    A DuckDB file that a running service holds cannot be read by anybody else.
    """
    if not settings.influx.url:
        return closing(DuckDbHistory(settings.data.dir / "series.duckdb"))
    # As above.
    from storage.influx import InfluxSeries  # noqa: PLC0415

    keep = settings.series
    days = {"raw_days": keep.raw_days, "minute_days": keep.minute_days, "hour_days": keep.hour_days}
    return closing(InfluxSeries(settings.influx, **days))
