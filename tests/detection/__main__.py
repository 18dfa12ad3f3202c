"""`make detection`: how well the default rules tell what happens, on labelled virtual fleets. Seeded; no broker.

`make detection ARGS="--days 60 --times 5"` is quicker and says less. `--write` puts the tables into docs/detection.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor

from tests.detection import table
from tests.detection.judge import Verdict
from tests.detection.scenes import SENSORS, Scene, every_fault, false_p0, ordinary, play, silent_sites
from tests.servers import ROOT


def main() -> None:
    """Plays all scenes, on two cores, and prints what came of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.detection", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=int, default=20, help="each fault so often")
    parser.add_argument("--days", type=int, default=100, help="device days of ordinary life, of each kind")
    parser.add_argument("--p0-days", type=int, default=600, help="lift days for false P0, for each sensor")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="into docs/detection.md")
    options = parser.parse_args()
    scenes = [
        *every_fault(options.times, options.seed),
        *silent_sites(options.times // 4, options.seed),
        *ordinary(options.days, options.seed),
        *false_p0(options.p0_days, options.seed),
    ]
    found = _played(scenes, options.processes)
    faults = found["faults"]
    faults.add(found["site"])
    sensors = {name: (found[f"P0 {name}"], found[f"P0 stopped {name}"]) for name in SENSORS}
    text = (
        f"`python -m tests.detection --seed {options.seed} --times {options.times} --days {options.days} "
        f"--p0-days {options.p0_days}`, {sum(one.messages for one in found.values()):,} messages.\n\n"
        f"{table.by_group(faults, found['ordinary'])}\n{table.p0(sensors)}"
    )
    sys.stdout.write(text)
    for name, verdict in found.items():
        for one in verdict.wrong:
            sys.stderr.write(f"{name}: wrong: {one}\n")
        for hit in verdict.hits if name in ("faults", "site") else ():
            if not hit.in_time:
                sys.stderr.write(f"{name}: not in time: {hit.fault} {hit.group} {hit.delay_ms}\n")
    if options.write:
        table.write(text, ROOT / "docs" / "detection.md")


def _played(scenes: list[Scene], processes: int) -> dict[str, Verdict]:
    found: dict[str, Verdict] = defaultdict(Verdict)
    with ProcessPoolExecutor(processes) as pool:
        for done, (scene, verdict) in enumerate(zip(scenes, pool.map(play, scenes, chunksize=4), strict=True), 1):
            found[scene.name].add(verdict)
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{done} of {len(scenes)}")
    return found


if __name__ == "__main__":
    main()
