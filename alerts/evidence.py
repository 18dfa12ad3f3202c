"""Why a rule fired: what a person is shown, and what decides an argument later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alerts.memory import Device, Part, held_value
from alerts.rules import Rule
from core.incident import RuleState
from core.reading import Event


def evidence(device: Device, part: Part, rule: Rule, state: RuleState, at: int, event: Event | None) -> dict[str, Any]:
    """Why the rule fired: its text, since when, and the values it saw with their device times."""
    names: Sequence[str] = sorted(rule.when.fields) if rule.when else ()
    seen: dict[str, Any] = {}
    for name in names:
        held = held_value(device, part, name)
        if held is not None:
            seen[name] = {"value": held[0], "ts": held[1]}
    told: dict[str, Any] = {"rule": rule.id, "since": state.since, "at": at, "values": seen}
    if rule.when:
        told["when"] = rule.when.text
    if event is not None:
        told["event"] = {"id": event.id, "code": event.code, "table": event.table, "fault": event.fault}
    if rule.silence_ms is not None:
        told["silent_for_ms"] = rule.silence_ms
    return told
