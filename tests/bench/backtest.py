"""How fast stored history is played through rules: all default rules, and one changed rule against today's.

Wall time is what a person waits for; CPU time of all processes is what can be compared on a busy machine.
"""

from __future__ import annotations

import gc
import resource
import time
from pathlib import Path

from alerts.backtest_run import SEARCH_AFTER, Asked, backtest
from core.reading import Batch, Event, Reading
from core.settings import Data, Settings
from storage.duckdb import DuckDbSeries
from tests import servers
from tests.bench.figures import Figure
from tests.bench.life import START_MS, copied, messages
from tests.bench.options import Options

LIFE_S = 3_600
COPIES = 60
WINDOWED_S = 300
"""Of this life through all default rules: their windows cost a hundred times what plain rules do."""
AT_ONCE = 10_000
PROMISED = 200_000

TRIED = """
kind: elevator
rules:
  - id: lift-stopped-empty
    group: stopped-between-floors
    severity: P2
    title: {zh: "层间停梯（无人）", en: "Stopped between floors, empty"}
    when: not moving and not door_zone and not (known(occupied) and occupied)
    for: 20s
    clear: door_zone
"""


def backtests(folder: Path, options: Options) -> list[Figure]:
    options.progress("writing the history")
    stored = _write(folder)
    tried = folder / "tried.yaml"
    tried.write_text(TRIED, encoding="utf-8")
    figures = [Figure("backtest: stored readings and events", stored, "")]
    for what, other, seconds in (("default rules", None, WINDOWED_S), ("one rule changed", tried, LIFE_S)):
        for processes in (1, 2):
            rates, cpu = zip(*(_one(folder, other, seconds, processes) for _ in range(options.rounds)), strict=True)
            name = f"backtest: {what}, {processes} process{'es' if processes > 1 else ''}"
            options.progress(name)
            figures.append(Figure(name, max(rates), "readings/s", at_least=PROMISED if processes > 1 else None))
            figures.append(Figure(f"{name}: CPU", min(cpu), "us/reading"))
    return figures


def _write(folder: Path) -> int:
    life: list[Reading | Event] = []
    for message in messages(LIFE_S):
        life += [*message.readings, *message.events]
    store = DuckDbSeries(folder / "series.duckdb")
    everything = sorted(
        (one for number in range(COPIES) for one in copied(tuple(life), number)), key=lambda one: one.ts
    )
    for start in range(0, len(everything), AT_ONCE):
        store.write(Batch(tuple(everything[start : start + AT_ONCE])))
    store.close()
    return len(everything)


def _one(folder: Path, other: Path | None, seconds: int, processes: int) -> tuple[float, float]:
    """(readings a second, CPU us a reading)."""
    gc.set_threshold(SEARCH_AFTER, 20, 20)
    rules = servers.ROOT / "deploy" / "rules"
    asked = Asked(rules, other, START_MS, START_MS + seconds * 1_000, 0, every=False)
    cpu, began = _cpu_s(), time.perf_counter()
    result = backtest(Settings(data=Data(dir=folder)), asked, {}, processes=processes)
    took_s, cpu_s = time.perf_counter() - began, _cpu_s() - cpu
    return result.items / took_s, cpu_s / result.items * 1e6


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
