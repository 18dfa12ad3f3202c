"""The figures as tables, and their place in docs/detection.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from core.faults import Severity
from tests.detection.judge import Hit, Verdict
from tests.detection.scenes import SENSORS, default_rules

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
MONTH_MS: Final = 30 * 86_400_000

STOPPAGES_A_MONTH: Final = 5.0
"""Of 100 lifts: 0.4 to 1.3 entrapments are a fifth of all breakdowns (DOMAIN section 7)."""


def severities() -> dict[str, Severity]:
    """The most urgent rule of each group."""
    found: dict[str, Severity] = {}
    for rule in default_rules():
        group = rule.finding.group
        found[group] = min(rule.finding.severity, found.get(group, rule.finding.severity))
    return found


def by_group(faults: Verdict, life: Verdict) -> str:
    """Recall, precision, false alarms and delays of each group."""
    urgency = severities()
    rows = []
    for group in sorted(urgency, key=lambda one: (urgency[one], one)):
        hits = [hit for hit in faults.hits if hit.group == group]
        told = [hit for hit in hits if hit.delay_ms is not None]
        wrong = sum(one.group == group for one in (*faults.wrong, *life.wrong))
        right = faults.right[group]
        rows.append(
            (
                group,
                urgency[group],
                str(len(hits)),
                _share(sum(hit.in_time for hit in hits), len(hits)),
                _share(len(told), len(hits)),
                _share(right, right + wrong),
                _monthly(sum(one.group == group for one in life.wrong), life.device_ms[_kind(group)]),
                *_delays(told),
            )
        )
    head = ("group", "", "faults", "in time", "told at all", "precision", "false / 100 dev. month", "p50", "p95")
    return markdown(head, rows)


def p0(by_sensors: Mapping[str, tuple[Verdict, Verdict]]) -> str:
    """False entrapments of several sensors, in life as ever and while a lift stands empty between floors."""
    rows = []
    for name in SENSORS:
        life, stopped = by_sensors[name]
        false, days = len(life.wrong), life.device_ms["elevator"] / 86_400_000
        while_stopped = sum(one.group == "entrapment" for one in stopped.wrong)
        stoppages = len(stopped.hits) or round(stopped.device_ms["elevator"] / 7_200_000)
        monthly = 3_000 * false / days
        per_stop = while_stopped / stoppages
        rows.append(
            (
                name,
                f"{days:,.0f}",
                str(false),
                f"{monthly:.1f} (at most {3_000 * _upper(false) / days:.1f})",
                f"{while_stopped} of {stoppages}",
                f"{monthly + per_stop * STOPPAGES_A_MONTH:.2f}",
            )
        )
    head = ("presence sensor", "lift days", "false", "/ 100 lifts month", "while stopped 1 h", "together")
    return markdown(head, rows)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def write(text: str, page: Path) -> None:
    """Puts the figures between the markers of the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _kind(group: str) -> str:
    kinds = {rule.kind for rule in default_rules() if rule.finding.group == group}
    return "elevator" if "elevator" in kinds else "charger"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _monthly(count: int, device_ms: int) -> str:
    return f"{count * 100 * MONTH_MS / device_ms:.1f}" if device_ms else "-"


def _delays(told: Sequence[Hit]) -> tuple[str, str]:
    delays = sorted(hit.delay_ms or 0 for hit in told)
    return tuple(_time(delays[min(len(delays) - 1, round(q * len(delays)))]) if delays else "-" for q in (0.5, 0.95))  # type: ignore[return-value]


def _time(ms: int) -> str:
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min")):
        if ms >= 2 * size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms / 1_000:.0f} s"


def _upper(count: int) -> float:
    """The true mean is smaller than this with 95 % (Poisson, about)."""
    return 3.0 if count == 0 else count + 1.65 * count**0.5 + 1.35
