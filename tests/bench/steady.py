"""A long steady load, then three times as much, then the steady one again: memory, lag, CPU, and what was lost.

Lag is measured from outside: a message that the broker acknowledged at some time counts as late from then until the
service has settled as many. So what waits in the broker counts too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests import servers, stored
from tests.bench import processes
from tests.bench.figures import Figure, percentile
from tests.bench.options import Options

OVERLOAD = 3
OVERLOAD_S = 20
AFTER_S = 15
SETTLE_S = 10
"""The first seconds of a load do not count: 5 000 strangers are written into the register."""
DRAIN_S = 600


class Sample(NamedTuple):
    """How it stands at one moment."""

    at: float
    resident_mb: float
    lag_s: float
    in_flight: int
    cpu_s: float
    settled: int


def steady(folder: Path, options: Options) -> list[Figure]:
    figures = []
    for store in options.stores:
        (folder / store).mkdir()
        figures += _one(folder / store, options, store)
    return figures


def _one(folder: Path, options: Options, store: str) -> list[Figure]:
    with servers.mosquitto(folder, queued=5_000_000) as broker, processes.store(store, folder) as (env, pids):
        with processes.serving(folder, broker, env, "data") as running:
            watched = _Watched(processes.Service(running, pids), broker, options)
            calm = watched.load(f"{store}: steady", options.rate, max(options.seconds, 2 * SETTLE_S))
            busy = watched.load(f"{store}: overload", OVERLOAD * options.rate, OVERLOAD_S)
            drained_s = watched.drain()
            after = watched.load(f"{store}: steady again", options.rate, AFTER_S)
            watched.drain()
        influx = env.get("TIZHUANG_INFLUX__URL", "")
        kept = stored.count(influx) if influx else stored.count_in_file(running.data / "series.duckdb")
    lost = watched.acked - kept
    return _calm(store, calm) + _busy(store, busy, drained_s, after, lost)


class _Watched:
    """One service and the loads it gets, one after the other."""

    def __init__(self, service: processes.Service, broker: servers.Mosquitto, options: Options) -> None:
        self._service, self._broker, self._options = service, broker, options
        self.acked = 0
        """By the broker, in all loads that are over."""

    def load(self, what: str, rate: float, seconds: float) -> list[Sample]:
        """Samples once a second while the load runs, without the first ones."""
        samples = []
        site = f"load-{self.acked}"
        with processes.load(
            self._broker.url,
            rate=rate,
            seconds=seconds,
            devices=self._options.devices,
            brief=self._options.brief,
            site=site,
        ) as load:
            began = time.monotonic()
            while load.child.poll() is None:
                time.sleep(1)
                gone = time.monotonic() - began
                sample = self._sample(load.acked, load.acked_at)
                if gone > min(SETTLE_S, seconds / 3):
                    samples.append(sample)
                if int(gone) % 10 == 0:
                    left = max(0, seconds - gone)
                    now = f"lag {sample.lag_s:.2f} s, {sample.resident_mb:.0f} MB"
                    self._options.progress(f"{what} at {rate:g}/s, {left:.0f} s left: {now}")
            self.acked += load.wait()["acked"]
        return samples

    def drain(self) -> float:
        """Seconds until everything is settled."""
        began = time.monotonic()
        self._options.progress("waiting until everything is settled")
        servers.wait_until("settled", lambda: self._service.settled() >= self.acked, timeout_s=DRAIN_S)
        return time.monotonic() - began

    def _sample(self, acked: int, acked_at: Callable[[int], float]) -> Sample:
        counts = self._service.stats()
        now = time.time()
        settled = counts["stored"] + counts["duplicate"] + counts["quarantined"]
        of_this_load = settled - self.acked
        lag_s = max(0.0, now - acked_at(of_this_load + 1)) if of_this_load < acked else 0.0
        pid = self._service.pid
        return Sample(now, processes.resident_mb(pid), lag_s, counts["in_flight"], processes.cpu_s(pid), settled)


def _calm(store: str, samples: list[Sample]) -> list[Figure]:
    first, last = samples[0], samples[-1]
    seconds, settled = last.at - first.at, last.settled - first.settled
    cpu_s = last.cpu_s - first.cpu_s
    lags = [one.lag_s for one in samples]
    name = f"steady, {store}"
    return [
        Figure(f"{name}: settled", settled / seconds, "messages/s"),
        Figure(f"{name}: memory at the start", first.resident_mb, "MB"),
        Figure(f"{name}: memory at the end", last.resident_mb, "MB"),
        Figure(f"{name}: memory, most", max(one.resident_mb for one in samples), "MB", under=400),
        Figure(f"{name}: lag p99", percentile(lags, 0.99), "s"),
        Figure(f"{name}: lag, most", max(lags), "s", under=1),
        Figure(f"{name}: CPU of the service", 100 * cpu_s / seconds, "% of a core"),
        Figure(f"{name}: CPU a message", cpu_s / max(1, settled) * 1e6, "us"),
    ]


def _busy(store: str, busy: list[Sample], drained_s: float, after: list[Sample], lost: int) -> list[Figure]:
    name = f"overload x{OVERLOAD}, {store}"
    seconds = busy[-1].at - busy[0].at
    return [
        Figure(f"{name}: settled", (busy[-1].settled - busy[0].settled) / seconds, "messages/s"),
        Figure(f"{name}: in flight, most", max(one.in_flight for one in busy), "messages"),
        Figure(f"{name}: memory, most", max(one.resident_mb for one in busy), "MB", under=400),
        Figure(f"{name}: all settled after", drained_s, "s"),
        Figure(f"{name}: lag afterwards, most", max(one.lag_s for one in after), "s", under=1),
        Figure(f"{name}: acknowledged by the broker and not stored", lost, "messages", under=1),
    ]
