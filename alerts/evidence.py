"""Why a rule fired: what a person is shown, and what decides an argument later."""

from __future__ import annotations

from typing import Any

from alerts.memory import Part, held_value
from alerts.rules import Rule
from core.incident import RuleState
from core.reading import Event


def evidence(part: Part, rule: Rule, state: RuleState, at: int, event: Event | None) -> dict[str, Any]:
    """Why the rule fired: its text and version, since when, and the values it saw with their device times."""
    seen: dict[str, Any] = {}
    for name in sorted(rule.when.fields) if rule.when else ():
        held = held_value(part, name)
        if held is not None:
            seen[name] = {"value": held[0], "ts": held[1]}
    told: dict[str, Any] = {"rule": rule.id, "version": rule.version, "since": state.since, "at": at, "values": seen}
    if rule.when:
        told["when"] = rule.when.text
    if rule.for_ms:
        told["for_ms"] = rule.for_ms
    if event is not None:
        told["event"] = {"id": event.id, "code": event.code, "table": event.table, "fault": event.fault}
    if rule.silence_ms is not None:
        told["silent_for_ms"] = rule.silence_ms
    return told
