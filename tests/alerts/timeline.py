"""Time lines as plain data, for tests that build theirs in Python. What plays them: `alerts.player`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import yaml

from alerts.casefile import parse_cases
from alerts.player import BASE, DELAY_MS, WAYS, Case, Memory
from alerts.player import play as played
from alerts.rulebook import RuleBook
from core.incident import Change

__all__ = ["BASE", "DELAY_MS", "Memory", "in_every_way", "play", "told"]


def in_every_way(cases: Mapping[str, Case]) -> list[Any]:
    """Parameters (case, way) for a test, by name of the case; what is known to fail today must fail."""
    return [
        pytest.param(
            case,
            way,
            id=f"{name} ({way})",
            marks=[pytest.mark.xfail(reason=case.known_faults[way])] if way in case.known_faults else [],
        )
        for name, case in cases.items()
        for way in WAYS
        if way in case.ways
    ]


def told(changes: Iterable[Change]) -> list[str]:
    """What became of incidents, in words: `20s raise lift-silent P4`, with `/3` behind the rule of port 3."""
    lines = []
    for change in changes:
        if change.effect == "none":
            continue
        part = f"/{change.state.part}" if change.state.part else ""
        line = f"{(change.at - BASE) / 1000:g}s {change.effect} {change.finding.rule_id}{part}"
        if change.effect == "raise":
            line += f" {change.finding.severity}" + (" late" if change.late else "")
        lines.append(line)
    return lines


def play(case: dict[str, Any], rules: RuleBook, *, restart_everywhere: bool = False) -> list[Change]:
    """All changes of a case (docs/rule-tests.md) given as data, in order; what it expects is not looked at."""
    text = yaml.safe_dump({"cases": [{"about": "a time line", **case, "expect": []}]}, allow_unicode=True)
    (one,) = parse_cases(text, "time line", lambda _: rules).cases
    return played(one, "restarts" if restart_everywhere else "plain")
