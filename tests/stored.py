"""What stands in a series store, asked from the store itself and not from our own counters or our own driver.

The schema: storage/duckdb.py and docs/influxdb.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import httpx

from tests.ledger import KIND, Point

DATABASE = "tizhuang"
EVENTS = "tizhuang_1h"


def points_in_file(path: Path) -> set[Point]:
    """Of the embedded store, once its owner is gone: (device, ts, seq) of snapshots and events."""
    with duckdb.connect(str(path), read_only=True) as connection:
        found = set()
        for table, fault in ((KIND, False), ("event", True)):
            rows = connection.execute(f"SELECT DISTINCT device_id, ts, seq FROM {table}").fetchall()
            found |= {Point(device_id, ts, seq, fault) for device_id, ts, seq in rows}
        return found


def count_in_file(path: Path) -> int:
    """Different snapshots."""
    with duckdb.connect(str(path), read_only=True) as connection:
        row = connection.execute(f"SELECT count(*) FROM (SELECT DISTINCT device_id, ts FROM {KIND})").fetchone()
        return int(row[0]) if row else 0


def points(url: str) -> set[Point]:
    """The same of InfluxDB, by InfluxQL."""
    found = set()
    for database, measurement, fault in ((DATABASE, KIND, False), (EVENTS, "event", True)):
        for series in _query(url, database, f'SELECT "seq", "rx" FROM "{measurement}" GROUP BY "site", "device"'):
            device_id = f"{series['tags']['site']}.{series['tags']['device']}"
            for time_ns, seq, _ in series["values"]:
                found.add(Point(device_id, time_ns // 1_000_000, seq, fault))
    return found


def count(url: str) -> int:
    total = 0
    for series in _query(url, DATABASE, f'SELECT count("seq") FROM "{KIND}"'):
        total += series["values"][0][1]
    return total


def _query(url: str, database: str, statement: str) -> list[dict[str, Any]]:
    query = {"db": database, "q": statement, "epoch": "ns"}
    answer = httpx.get(f"{url}/query", params=query, timeout=120)
    answer.raise_for_status()
    (result,) = answer.json()["results"]
    assert "error" not in result, result
    assert not result.get("partial"), "InfluxDB cut its answer short"
    found: list[dict[str, Any]] = result.get("series", [])
    return found
