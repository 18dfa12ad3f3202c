"""What a bench can be told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

from tests.bench.processes import STORES


class Options(NamedTuple):
    """Options of all scenarios; `make bench ARGS="steady --seconds 600"`."""

    names: list[str]
    stores: list[str]
    seconds: float
    rate: float
    devices: int
    messages: int
    rounds: int
    brief: bool

    @staticmethod
    def progress(what: str) -> None:
        """One line, so that nobody wonders whether it hangs."""
        print(f"  {what}", file=sys.stderr, flush=True)


def parse(words: Sequence[str], names: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="make bench", description=f"scenarios: {', '.join(names)}")
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help="which ones; all when none is named")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--seconds", type=float, default=60, help="length of the steady load")
    parser.add_argument("--rate", type=float, default=5_000, help="messages a second of the steady load")
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--messages", type=int, default=200_000, help="of one throughput round")
    parser.add_argument("--rounds", type=int, default=3, help="of throughput")
    parser.add_argument("--brief", action="store_true", help="snapshots of 6 fields instead of 27")
    options = Options(**vars(parser.parse_args(words)))
    if unknown := set(options.names) - set(names):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    return options._replace(names=options.names or list(names))
