"""A thousand faults within a second: how long until each has its ticket. Real SQLite records, durable as in service."""

from __future__ import annotations

import json
import time
from contextlib import redirect_stdout
from pathlib import Path

from alerts.desk import AlertDesk
from alerts.rulebook import load_rules
from core.payload import decode
from core.reading import Batch, Event
from storage.duckdb import DuckDbSeries
from storage.incidents import Incidents
from storage.records import address, open_records
from storage.register_file import checked
from storage.registry import Registry
from storage.tickets import Tickets
from tests import servers
from tests.bench.figures import Figure
from tests.bench.life import START_MS
from tests.bench.options import Options

FAULTS = 1_000
BATCHES = (500, 100, 10)
"""Messages that the worker hands over at once: 500 is what it does under load."""


def storm(folder: Path, options: Options) -> list[Figure]:
    figures = []
    for size in BATCHES:
        with (folder / "log").open("a", encoding="utf-8") as log, redirect_stdout(log):  # a line for each fault
            took = [_one(folder / f"{size}-{number}", size) for number in range(options.rounds)]
        figures.append(Figure(f"storm: {FAULTS} tickets, {size} messages at once", min(took), "s", under=2))
    return figures


def _one(folder: Path, size: int) -> float:
    folder.mkdir()
    records = open_records(address("", folder))
    registry, series = Registry(records), DuckDbSeries(folder / "series.duckdb")
    lifts = [{"site": "here", "id": f"lift-{n}", "kind": "elevator", "zh": f"{n}", "en": f"{n}"} for n in range(FAULTS)]
    registry.register(checked({"sites": [{"id": "here", "zh": "这里", "en": "Here"}], "devices": lifts}), now=START_MS)
    desk = AlertDesk(
        load_rules(servers.ROOT / "deploy" / "rules"),
        incidents=Incidents(records),
        registry=registry,
        series=series,
        now=lambda: START_MS + 1_000,
    )
    desk.listening(True)
    events = [_alarm(number) for number in range(FAULTS)]
    began = time.perf_counter()
    for start in range(0, FAULTS, size):
        desk.accept(Batch(tuple(events[start : start + size])))
    took = time.perf_counter() - began
    tickets = Tickets(records).find(limit=FAULTS + 1)
    assert len(tickets) == FAULTS, f"{len(tickets)} tickets of {FAULTS} faults"
    series.close()
    records.close()
    return took


def _alarm(number: int) -> Event:
    body = {
        "id": f"e-{number}",
        "ts": START_MS + number,
        "seq": 1,
        "code": "90",
        "table": "gbt24476",
        "state": "raised",
    }
    topic = f"tizhuang/v1/here/elevator/lift-{number}/event"
    (event,) = decode(topic, json.dumps(body).encode(), START_MS + number + 40).events
    return event
