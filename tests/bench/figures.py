"""What a bench reports: figures, the promises they are held to, and the table and JSON line made of them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Figure(NamedTuple):
    """One measured figure, and the limit that the product promises, where it promises one."""

    name: str
    value: float
    unit: str
    under: float | None = None
    at_least: float | None = None

    @property
    def kept(self) -> bool | None:
        """Whether the promise was kept; None where there is none."""
        if self.under is not None:
            return self.value < self.under
        return None if self.at_least is None else self.value >= self.at_least

    @property
    def promise(self) -> str:
        if self.kept is None:
            return ""
        words = f"under {self.under:g}" if self.under is not None else f"at least {self.at_least:g}"
        return f"  promised {words}: {'kept' if self.kept else 'NOT KEPT'}"


def table(figures: Sequence[Figure]) -> str:
    width = max(len(figure.name) for figure in figures)
    return "\n".join(f"{one.name:<{width}}  {one.value:>11.2f} {one.unit}{one.promise}" for one in figures)


def json_line(figures: Sequence[Figure]) -> str:
    found = {one.name: {"value": round(one.value, 3), "unit": one.unit, "kept": one.kept} for one in figures}
    return json.dumps(found, ensure_ascii=False)


def machine() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return f"{platform.machine()}, {os.cpu_count()} cores, {model}, Python {platform.python_version()}"


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
