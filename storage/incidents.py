"""From the engine's changes to incidents, tickets and outbox rows: one transaction for all of them.

One open incident per (device, part, fault group) is a unique index of the database, so a second worker, a redelivery or
a bug of ours can join an open incident but never open another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, select, update

from core.errors import NotFound
from core.incident import Change, RuleState
from storage import tickets
from storage.outbox import put
from storage.records import Records, dialect_insert
from storage.tables import device, incident, rule_state


class Incident(NamedTuple):
    """A rule that fired for a device. Times: Unix ms; `*_device_ms` by the device's clock."""

    id: int
    device_id: str
    part: str
    fault_group: str
    rule_id: str
    severity: str
    title_zh: str
    title_en: str
    what_to_do_zh: str
    what_to_do_en: str
    needs_clear: bool
    opened_device_ms: int
    opened: int
    late: bool
    evidence: Mapping[str, Any]
    cleared_device_ms: int | None
    closed: int | None
    outcome: str | None


class Incidents:
    """Reads and writes of incidents and of the engine's memory."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def apply(self, changes: Sequence[Change], *, now: int) -> None:
        """Makes changes of the engine durable, all or none. Applying the same changes again adds nothing."""
        with self._records.write() as connection:
            if _is_known(connection, changes):
                return
            for change in changes:
                _remember(connection, change.state)
                if change.effect == "raise":
                    _raise(connection, change, now)
                elif change.effect == "clear":
                    _clear(connection, change, now)

    def rule_states(self) -> list[dict[str, Any]]:
        """The engine's memory: rows of `rule_state`."""
        with self._records.read() as connection:
            return [dict(row) for row in connection.execute(select(rule_state)).mappings()]

    def get(self, incident_id: int) -> Incident:
        """Raises NotFound."""
        with self._records.read() as connection:
            row = connection.execute(select(incident).where(incident.c.id == incident_id)).first()
        if row is None:
            raise NotFound("incident", incident_id)
        return Incident(*row)

    def find(
        self,
        *,
        open_only: bool = False,
        device_id: str | None = None,
        site_id: str | None = None,
        limit: int = 200,
        before_id: int | None = None,
    ) -> list[Incident]:
        """Newest first; `before_id` pages on."""
        query = select(incident).order_by(incident.c.id.desc()).limit(limit)
        if open_only:
            query = query.where(incident.c.closed.is_(None))
        if device_id is not None:
            query = query.where(incident.c.device_id == device_id)
        if site_id is not None:
            query = query.join(device, device.c.id == incident.c.device_id).where(device.c.site_id == site_id)
        if before_id is not None:
            query = query.where(incident.c.id < before_id)
        with self._records.read() as connection:
            return [Incident(*row) for row in connection.execute(query)]

    def open_severities(self) -> dict[str, dict[str, int]]:
        """Open incidents: count by severity, by device id."""
        query = (
            select(incident.c.device_id, incident.c.severity, func.count())
            .where(incident.c.closed.is_(None))
            .group_by(incident.c.device_id, incident.c.severity)
        )
        found: dict[str, dict[str, int]] = {}
        with self._records.read() as connection:
            for device_id, severity, count in connection.execute(query):
                found.setdefault(device_id, {})[severity] = count
        return found


def _is_known(connection: Connection, changes: Iterable[Change]) -> bool:
    """Whether every rule already stands where these changes lead: another worker, or a commit whose answer was lost."""
    last = {(change.state.device_id, change.state.part, change.state.rule_id): change.state for change in changes}
    for (device_id, part, rule_id), state in last.items():
        row = connection.execute(select(rule_state).filter_by(device_id=device_id, part=part, rule_id=rule_id)).first()
        if row is None:
            return False
        known = (row.state, row.since_device_ms, row.changed_device_ms, tuple(row.event_ids))
        if known != (state.state, state.since, state.changed, state.event_ids):
            return False
    return True


def _remember(connection: Connection, state: RuleState) -> None:
    key = {"device_id": state.device_id, "part": state.part, "rule_id": state.rule_id}
    connection.execute(delete(rule_state).filter_by(**key))
    connection.execute(
        rule_state.insert().values(
            **key,
            state=state.state,
            since_device_ms=state.since,
            changed_device_ms=state.changed,
            event_ids=list(state.event_ids),
        )
    )


def _raise(connection: Connection, change: Change, now: int) -> None:
    """Opens the incident with its ticket, or joins the open one of the same fault group."""
    finding, state = change.finding, change.state
    device_row = connection.execute(select(device).where(device.c.id == state.device_id)).one()
    row = {
        "device_id": state.device_id,
        "part": state.part,
        "fault_group": finding.group,
        "rule_id": finding.rule_id,
        "severity": str(finding.severity),
        "title_zh": finding.title.zh,
        "title_en": finding.title.en,
        "what_to_do_zh": finding.what_to_do.zh,
        "what_to_do_en": finding.what_to_do.en,
        "needs_clear": finding.needs_clear,
        "opened_device_ms": change.at,
        "opened": now,
        "late": change.late,
        "evidence": dict(change.evidence),
    }
    opened = connection.execute(
        dialect_insert(connection, incident).values(row).on_conflict_do_nothing().returning(incident.c.id)
    ).scalar_one_or_none()
    if opened is None:
        _join(connection, _open_incident(connection, state, finding.group), change, now)
        return
    tickets.open_ticket(connection, opened, device_row.contractor_id, at=change.at, evidence=change.evidence, now=now)
    put(connection, opened, "late" if change.late else "opened", now=now)


def _join(connection: Connection, found: Incident | None, change: Change, now: int) -> None:
    """A further rule of the group fires, or it fires again: the same incident, at the higher urgency of the two."""
    assert found is not None, "the insert met an open incident and we hold the write lock"
    finding = change.finding
    known = found.rule_id == finding.rule_id and found.cleared_device_ms is None and found.opened_device_ms == change.at
    if known:
        return  # the very change that opened it, applied again
    severity = min(found.severity, str(finding.severity))
    needs_clear = found.needs_clear or finding.needs_clear
    connection.execute(
        update(incident)
        .where(incident.c.id == found.id)
        .values(cleared_device_ms=None, severity=severity, needs_clear=needs_clear)
    )
    tickets.note(connection, found.id, "joined", at=change.at, facts=change.evidence, now=now)
    if severity != found.severity:
        put(connection, found.id, "changed", now=now)


def _clear(connection: Connection, change: Change, now: int) -> None:
    """No rule of the group fires any more. Only what telemetry may close, and nobody has taken on, closes by itself."""
    found = _open_incident(connection, change.state, change.finding.group)
    if found is None or found.cleared_device_ms is not None:
        return
    connection.execute(update(incident).where(incident.c.id == found.id).values(cleared_device_ms=change.at))
    tickets.note(connection, found.id, "cleared", at=change.at, facts={"rule": change.finding.rule_id}, now=now)
    put(connection, found.id, "cleared", now=now)
    if change.finding.close == "telemetry" and not found.needs_clear:
        tickets.recover(connection, found.id, now=now)


def _open_incident(connection: Connection, state: RuleState, group: str) -> Incident | None:
    row = connection.execute(
        select(incident).where(
            incident.c.device_id == state.device_id,
            incident.c.part == state.part,
            incident.c.fault_group == group,
            incident.c.closed.is_(None),
        )
    )
    found = row.first()
    return None if found is None else Incident._make(found)
