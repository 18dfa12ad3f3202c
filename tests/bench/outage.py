"""InfluxDB is killed under the steady load and comes back: how long until everything is as before."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path

from tests import servers
from tests.bench import processes
from tests.bench.figures import Figure
from tests.bench.options import Options

AWAY_S = 20
LONGEST_S = 180


def outage(folder: Path, options: Options) -> list[Figure]:
    place, port = folder / "influxd", servers.free_port()
    place.mkdir()
    with servers.mosquitto(folder, queued=2_000_000) as broker, servers.influxd(place, port=port) as influx:
        env = {"TIZHUANG_INFLUX__URL": influx.url}
        with processes.serving(folder, broker, env, "data") as running, _load(broker, options) as load:
            service = processes.Service(running, {})
            warm = 3 * options.rate
            servers.wait_until("the load at its pace", lambda: service.settled() > warm, timeout_s=60)
            influx.child.kill()
            influx.child.wait()
            options.progress(f"outage: InfluxDB is away for {AWAY_S} s")
            time.sleep(AWAY_S)
            spooled = service.stats()["spooled"]
            with servers.influxd(place, port=port):
                empty_s = _empty_after(service, load, options)
    return [
        Figure(f"outage at {options.rate:g}/s: in the spool after {AWAY_S} s", spooled, "messages"),
        Figure("outage: spool empty and nothing late after", empty_s, "s", under=LONGEST_S),
    ]


def _load(broker: servers.Mosquitto, options: Options) -> AbstractContextManager[processes.LoadProcess]:
    seconds = LONGEST_S + AWAY_S + 60
    return processes.load(broker.url, rate=options.rate, devices=options.devices, brief=options.brief, seconds=seconds)


def _empty_after(service: processes.Service, load: processes.LoadProcess, options: Options) -> float:
    """Seconds, while the load goes on; LONGEST_S where it takes longer."""
    began = told = time.monotonic()
    while (gone := time.monotonic() - began) < LONGEST_S:
        counts = service.stats()
        behind = load.acked - counts["received"]
        if not counts["spooled"] and behind < options.rate:
            break
        if time.monotonic() - told > 10:
            told = time.monotonic()
            options.progress(f"outage: {counts['spooled']} in the spool, {behind} in the broker after {gone:.0f} s")
        time.sleep(0.25)
    return time.monotonic() - began
