"""Cases as rows: what a batch of changes is about, read in portions, and what became of it, written in portions.

A case is one fault (device, part, group) with its newest incident and that one's ticket, as dicts of their columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select, update

from core.incident import Change
from storage.registry import add_whole_sites
from storage.tables import device, incident, ticket, ticket_history
from storage.turns import CHUNK, batched

_CHANGING: Final = (
    "late",
    "title_zh",
    "title_en",
    "what_to_do_zh",
    "what_to_do_en",
    "severity",
    "needs_clear",
    "cleared_device_ms",
    "closed",
    "outcome",
    "reopened",
    "reason",
    "rule_version",
)
"""Columns of an incident that a change may touch."""


class Fault(NamedTuple):
    """What an incident is about."""

    device_id: str
    part: str
    group: str

    @classmethod
    def of(cls, change: Change) -> Fault:
        return cls(change.state.device_id, change.state.part, change.finding.group)


@dataclass(eq=False)
class Case:
    """The newest incident of a fault and its ticket; new ones get their ids when they are written."""

    incident: dict[str, Any]
    ticket: dict[str, Any]
    previous: Case | None = None
    """Of a new one: the case before, where that is new as well and has no id yet."""

    @property
    def is_open(self) -> bool:
        return self.incident["closed"] is None


Line = tuple[Fault, str, int, str]
"""What a line of history is known by: fault, action, device time, rule."""

_NEWEST: Final = (
    select(
        incident,
        ticket.c.id.label("ticket_id"),
        ticket.c.state.label("ticket_state"),
        ticket.c.contractor_id.label("ticket_contractor_id"),
    )
    .join(ticket, ticket.c.incident_id == incident.c.id)
    .where(
        incident.c.id.in_(
            select(func.max(incident.c.id))
            .where(
                incident.c.device_id.in_(bindparam("devices", expanding=True)),
                incident.c.part.in_(bindparam("parts", expanding=True)),
                incident.c.fault_group.in_(bindparam("groups", expanding=True)),
            )
            .group_by(incident.c.device_id, incident.c.part, incident.c.fault_group)
        )
    )
)
"""The newest incident of each fault, and of a few that were not asked for. Made once: that takes as long as asking."""

_CONTRACTORS: Final = select(device.c.id, device.c.contractor_id).where(
    device.c.id.in_(bindparam("devices", expanding=True))
)


def read_cases(connection: Connection, faults: set[Fault]) -> dict[Fault, Case]:
    """The newest incident of each fault; an open one is always the newest."""
    found: dict[Fault, Case] = {}
    for some in batched(sorted(faults), CHUNK):
        asked = {
            "devices": list({one.device_id for one in some}),
            "parts": list({one.part for one in some}),
            "groups": list({one.group for one in some}),
        }
        for row in connection.execute(_NEWEST, asked).mappings():
            columns = {str(name): value for name, value in row.items()}
            work = {name: columns.pop(f"ticket_{name}") for name in ("id", "state", "contractor_id")}
            fault = Fault(row["device_id"], row["part"], row["fault_group"])
            found[fault] = Case(columns, work)
    return found


def read_contractors(connection: Connection, device_ids: set[str], *, now: int) -> dict[str, str | None]:
    """By device id; a device that nobody knows is missing. Whole sites get their rows here."""
    found: dict[str, str | None] = {}
    add_whole_sites(connection, device_ids, now=now)
    for some in batched(sorted(device_ids), CHUNK):
        for row in connection.execute(_CONTRACTORS, {"devices": some}):
            found[row.id] = row.contractor_id
    return found


def read_lines(connection: Connection, device_ids: set[str], times: set[int]) -> set[Line]:
    """Lines of history of these devices and device times. Few: times are milliseconds, and an index finds them."""
    found: set[Line] = set()
    columns = (incident.c.device_id, incident.c.part, incident.c.fault_group)
    line = ticket_history.c
    for some in batched(sorted(times), CHUNK):
        query = (
            select(*columns, line.action, line.device_ms, line.facts)
            .select_from(ticket_history)
            .join(ticket, ticket.c.id == line.ticket_id)
            .join(incident, incident.c.id == ticket.c.incident_id)
            .where(line.device_ms.in_(some))
        )
        for row in connection.execute(query):
            if row.device_id in device_ids:
                fault = Fault(row.device_id, row.part, row.fault_group)
                found.add((fault, row.action, row.device_ms, str(row.facts.get("rule", ""))))
    return found


def write_touched(connection: Connection, cases: Sequence[Case], *, now: int) -> None:
    """Cases from the database that changed."""
    if not cases:
        return
    values: dict[Any, Any] = {name: bindparam(f"new_{name}") for name in _CHANGING}
    connection.execute(
        update(incident).where(incident.c.id == bindparam("new_id")).values(values),
        [{f"new_{name}": case.incident[name] for name in ("id", *_CHANGING)} for case in cases],
    )
    work = ("id", "state", "contractor_id")
    connection.execute(
        update(ticket)
        .where(ticket.c.id == bindparam("new_id"))
        .values(state=bindparam("new_state"), contractor_id=bindparam("new_contractor_id"), changed=now),
        [{f"new_{name}": case.ticket[name] for name in work} for case in cases],
    )


def write_opened(connection: Connection, cases: Sequence[Case]) -> None:
    """New cases; they get their ids."""
    if not cases:
        return
    rows = [{**case.incident, "previous_id": case.previous and case.previous.incident["id"]} for case in cases]
    for row in rows:
        del row["id"]
    _insert_all(connection, incident, rows, [case.incident for case in cases])
    work = [{**case.ticket, "incident_id": case.incident["id"]} for case in cases]
    for row in work:
        del row["id"]
    _insert_all(connection, ticket, work, [case.ticket for case in cases])
    for case, row in zip(cases, rows, strict=True):
        if case.previous is not None and row["previous_id"] is None:
            previous_id = case.previous.incident["id"]
            connection.execute(
                update(incident).where(incident.c.id == case.incident["id"]).values(previous_id=previous_id)
            )


def _insert_all(
    connection: Connection, table: Any, rows: Sequence[Mapping[str, Any]], targets: Sequence[dict[str, Any]]
) -> None:
    """Inserts in order, and writes each new id into the target of the same place."""
    made = connection.execute(insert(table).returning(table.c.id, sort_by_parameter_order=True), list(rows)).scalars()
    for target, row_id in zip(targets, made, strict=True):
        target["id"] = row_id
