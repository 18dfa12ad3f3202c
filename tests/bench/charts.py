"""A chart over 30 days, and the last values of a whole town, as a page asks for them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from core import settings as core_settings
from core.payload import decode
from core.reading import Batch, Reading
from storage.drivers import open_series
from storage.series import SeriesStore
from tests import servers
from tests.bench import processes
from tests.bench.figures import Figure, percentile
from tests.bench.options import Options

DAYS = 30
EVERY_S = 30
DEVICE = "town.lift-00000"
FIELDS = ("motor_temp_c", "speed_mps", "vibration_x_mg", "floor")
ASKED = 50
_HOUR_MS = 3_600_000


def charts(folder: Path, options: Options) -> list[Figure]:
    figures = []
    for store in options.stores:
        (folder / store).mkdir()
        figures += _one(folder / store, options, store)
    return figures


def _one(folder: Path, options: Options, store: str) -> list[Figure]:
    with servers.mosquitto(folder) as broker, processes.store(store, folder) as (env, pids):
        data = folder / "data"
        data.mkdir()
        now_ms = time.time_ns() // 1_000_000
        url = env.get("TIZHUANG_INFLUX__URL")
        series = open_series(core_settings.load(data={"dir": data}, influx={"url": url}))
        options.progress(f"charts, {store}: writing {DAYS} days of one lift and {options.devices} others")
        for batch in _batches(now_ms, options.devices):
            series.write(batch)
        hour_ms = _roll_up(series, now_ms, lambda left: options.progress(f"charts, {store}: {left} hours to roll up"))
        last_ms = _times(lambda _: series.last_values(), ASKED)
        series.close()
        with processes.serving(folder, broker, env, "data") as running:
            service = processes.Service(running, pids)
            span = {"from": now_ms - DAYS * 24 * _HOUR_MS, "to": now_ms}
            path = f"/api/v1/devices/{DEVICE}/series"
            broker.publish("tizhuang/v1/town/elevator/lift-00000/telemetry", f'{{"ts": {now_ms}, "floor": 1}}')
            servers.wait_until("the device is known", lambda: service.settled() == 1)
            assert len(service.get(path, field=FIELDS[0], **span)["buckets"]) > 100
            chart_ms = _times(lambda n: service.get(path, field=FIELDS[n % len(FIELDS)], **span), ASKED)
    name = f"charts, {store}"
    return [
        Figure(f"{name}: {DAYS} days of one lift, p95", percentile(chart_ms, 0.95), "ms", under=50),
        Figure(f"{name}: last values of {options.devices} lifts, p95", percentile(last_ms, 0.95), "ms", under=100),
        Figure(f"{name}: rolling up an hour, mean", hour_ms, "ms"),
    ]


def _batches(now_ms: int, devices: int) -> Iterator[Batch]:
    """The others speak once; the one speaks twice a minute."""
    yield Batch(tuple(one for number in range(1, devices) for one in _readings(number, now_ms, now_ms)))
    start = now_ms - DAYS * 24 * _HOUR_MS + 2 * _HOUR_MS  # older ones are dropped while they are written
    day_ms = 24 * _HOUR_MS
    for day in range(start, now_ms, day_ms):
        times = range(day, min(day + day_ms, now_ms), EVERY_S * 1000)
        yield Batch(tuple(one for ts in times for one in _readings(0, ts, now_ms)))


def _readings(number: int, ts: int, now_ms: int) -> Sequence[Reading]:
    turn = ts // 1000 + number
    body = {
        "ts": ts,
        "moving": turn % 3 == 0,
        "door": "closed",
        "door_zone": True,
        "occupied": False,
        "floor": 1 + turn % 6,
        "speed_mps": turn % 10 / 10,
        "motor_temp_c": 20 + turn % 40,
        "vibration_x_mg": turn % 30,
    }
    topic = f"tizhuang/v1/town/elevator/lift-{number:05}/telemetry"
    return decode(topic, json.dumps(body).encode(), now_ms).readings


def _roll_up(series: SeriesStore, now_ms: int, tell: Callable[[int], None]) -> float:
    """All hours that are over; mean milliseconds of one."""
    hours = [hour for hour in series.unrolled() if hour + _HOUR_MS < now_ms]
    tell(len(hours))
    began = time.perf_counter()
    for hour in hours:
        series.roll_up(hour)
    return (time.perf_counter() - began) / len(hours) * 1000


def _times(work: Callable[[int], object], times: int) -> list[float]:
    """Milliseconds of each."""
    spent = []
    for number in range(times):
        began = time.perf_counter()
        work(number)
        spent.append((time.perf_counter() - began) * 1000)
    return spent
