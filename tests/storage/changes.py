"""Changes as the engine makes them, for tests of what becomes of them. Also a program that applies many of them."""

from __future__ import annotations

import sys
from typing import Any, Literal

from core.faults import Severity
from core.incident import Change, Finding, RuleState, Words
from storage.incidents import Incidents
from storage.records import open_records


def change(
    effect: Literal["none", "raise", "ease", "clear"],
    at: int,
    *,
    device: str = "here.lift",
    part: str = "",
    rule: str = "rule",
    group: str = "group",
    severity: str = "P1",
    close: Literal["person", "telemetry"] = "person",
    needs_clear: bool = False,
    late: bool = False,
    evidence: dict[str, Any] | None = None,
    now_severity: str | None = None,
    reason: str = "",
    reopen_ms: int = 0,
    ticket: dict[str, str] | None = None,
    title: str = "title",
) -> Change:
    """`severity`: of the rule; `now_severity`: of the incident after the change."""
    words = (Words("题", title), Words("做", "do"))
    finding = Finding(rule, group, Severity(severity), *words, close, needs_clear, reopen_ms, ticket or {})
    state = RuleState(device, part, rule, "firing" if effect == "raise" else "idle", at, at, (f"{effect}{at}",))
    return Change(finding, state, effect, at, late, evidence or {}, now_severity and Severity(now_severity), reason)  # type: ignore[arg-type]


def main(url: str, rule: str, groups: int) -> None:
    """Says `ready`, waits for a line, then raises in so many groups, one transaction each."""
    records = open_records(url)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    incidents = Incidents(records)
    for number in range(groups):
        incidents.apply([change("raise", 1_000 + number, rule=f"{rule}-{number}", group=f"g{number}")], now=5_000)
    records.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
