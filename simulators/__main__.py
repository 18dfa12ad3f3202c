"""`python -m simulators`: a fleet as a child process of `tizhuang demo`. It ends when its standard input closes."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time

from core.settings import Mqtt
from simulators.run import simulate

FAREWELL_S = 0.8
"""How long the fleet may take to say goodbye."""


def _end_with_parent(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):  # not sys.stdin: its lock is held at exit
        pass
    stop.set()
    time.sleep(FAREWELL_S)
    os._exit(0)


def main() -> None:
    """Publishes until the parent goes away."""
    parser = argparse.ArgumentParser(prog="python -m simulators")
    parser.add_argument("--mqtt-url", required=True)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--speed", type=float, required=True)
    parser.add_argument("--fault", action="append", default=[])
    options = parser.parse_args()
    stop = threading.Event()
    threading.Thread(target=_end_with_parent, args=(stop,), name="parent-watch", daemon=True).start()
    simulate(
        Mqtt(url=options.mqtt_url),
        options.preset,
        seed=options.seed,
        speed=options.speed,
        faults=options.fault,
        for_s=None,
        stop=stop,
    )


if __name__ == "__main__":
    main()
