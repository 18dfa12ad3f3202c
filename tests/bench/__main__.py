"""`make bench`: the figures of the main path, as a table and as one JSON line. Real servers, loopback, bounded time.

`make bench ARGS="throughput steady --seconds 600"` runs some of it. Absolute figures depend on the machine and on what
else it does; ratios within one run are what counts.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from tests.bench.backtest import backtests
from tests.bench.charts import charts
from tests.bench.engine_memory import engine_memory
from tests.bench.figures import Figure, json_line, machine, table
from tests.bench.latency import latency, ticket
from tests.bench.options import parse
from tests.bench.outage import outage
from tests.bench.quick import demo, pure, series_writes
from tests.bench.rules import rules
from tests.bench.steady import steady
from tests.bench.storm import storm
from tests.bench.throughput import throughput

SCENARIOS = {
    "pure": pure,
    "store": series_writes,
    "ticket": ticket,
    "demo": demo,
    "throughput": throughput,
    "latency": latency,
    "steady": steady,
    "outage": outage,
    "charts": charts,
    "rules": rules,
    "engine-memory": engine_memory,
    "storm": storm,
    "backtest": backtests,
}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped on the way out
    options = parse(sys.argv[1:], list(SCENARIOS))
    figures: list[Figure] = []
    for name in options.names:
        with tempfile.TemporaryDirectory(prefix="tizhuang-bench-") as folder:
            figures += SCENARIOS[name](Path(folder), options)
    print(f"{machine()}\n\n{table(figures)}\n{json_line(figures)}")


if __name__ == "__main__":
    main()
