"""From the engine's changes to incidents, tickets and outbox rows: one transaction for all of them.

One open incident per (device, part, fault group) is a unique index of the database, so a second worker, a redelivery or
a bug of ours can join an open incident but never open another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

from core.errors import NotFound
from core.incident import Change, RuleState
from storage.casebook import Casebook
from storage.records import Records
from storage.tables import device, incident, rule_state
from storage.turns import CHUNK, again_after_clash, batched, take_turn


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
    previous_id: int | None
    """The incident that this fault had before, where that is not longer ago than 30 days."""
    reopened: int
    """How often it was opened again because the fault came back soon."""
    reason: str
    """Why we cleared it, where it was not by what the device said: `rule-deleted`, `late-data`, ..."""
    rule_version: str


class Incidents:
    """Reads and writes of incidents and of the engine's memory."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def apply(self, changes: Sequence[Change], *, now: int) -> None:
        """Makes changes of the engine durable, all or none. Applying the same changes again adds nothing.

        Two processes may do so at the same time: the second waits for the first and sees what it did. Raises NotFound
        for a device that nobody knows, StoreUnavailable.
        """
        again_after_clash(lambda: self._apply(changes, now))

    def _apply(self, changes: Sequence[Change], now: int) -> None:
        last = {(change.state.device_id, change.state.part, change.state.rule_id): change for change in changes}
        with self._records.write() as connection:
            take_turn(connection)
            known = _known(connection, last)
            if all(_stands(known.get(key), change.state) for key, change in last.items()):
                return  # another worker was here, or a commit whose answer was lost
            lag = any(_is_behind(known, change) for change in changes)
            book = Casebook.open(connection, changes, now=now, look_back=lag)
            _remember(connection, [change.state for key, change in last.items() if not _is_past(known, change, book)])
            for change in changes:
                book.take(change)
            book.write()

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


_Key = tuple[str, str, str]

_STATES: Final = select(rule_state).where(
    rule_state.c.device_id.in_(bindparam("devices", expanding=True)),
    rule_state.c.part.in_(bindparam("parts", expanding=True)),
    rule_state.c.rule_id.in_(bindparam("rules", expanding=True)),
)


def _known(connection: Connection, keys: Iterable[_Key]) -> dict[_Key, Mapping[str, Any]]:
    """Where rules stand, by (device, part, rule)."""
    found: dict[_Key, Mapping[str, Any]] = {}
    for some in batched(sorted(keys), CHUNK):
        asked = {
            "devices": list({key[0] for key in some}),
            "parts": list({key[1] for key in some}),
            "rules": list({key[2] for key in some}),
        }
        for row in connection.execute(_STATES, asked).mappings():
            found[row["device_id"], row["part"], row["rule_id"]] = dict(row)
    return found


def _stands(row: Mapping[str, Any] | None, state: RuleState) -> bool:
    """Whether the rule stands already where the change leads."""
    if row is None:
        return False
    wanted = _row(state)
    return all(row[name] == wanted[name] for name in wanted if name != "memo") and row["memo"] == _plain(state.memo)


def _is_behind(known: Mapping[_Key, Mapping[str, Any]], change: Change) -> bool:
    """Whether the rule stands later than this already, so that another worker may have written the change."""
    state = change.state
    row = known.get((state.device_id, state.part, state.rule_id))
    return row is not None and int(row["changed_device_ms"]) >= min(change.at, state.changed)


def _is_past(known: Mapping[_Key, Mapping[str, Any]], change: Change, book: Casebook) -> bool:
    """Whether the rule went on since: who lags behind another worker must not set its course back.

    A change that has a reason may lead back: a clock was set, late data came.
    """
    state = change.state
    row = known.get((state.device_id, state.part, state.rule_id))
    if row is None or int(row["changed_device_ms"]) <= state.changed:
        return False
    return book.is_written(change) or (change.effect == "none" and not change.reason and not change.late)


def _remember(connection: Connection, states: Sequence[RuleState]) -> None:
    """In the order of the keys, so that two writers never wait for each other in a circle."""
    if not states:
        return
    rows = sorted((_row(state) for state in states), key=lambda row: (row["device_id"], row["part"], row["rule_id"]))
    connection.execute(_upsert(connection.dialect.name), rows)


@cache
def _upsert(dialect: str) -> Any:
    """Made once: that takes as long as doing it."""
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(rule_state)
    key = ("device_id", "part", "rule_id")
    values = {column.name: statement.excluded[column.name] for column in rule_state.c if column.name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=values)


def _row(state: RuleState) -> dict[str, Any]:
    return {
        "device_id": state.device_id,
        "part": state.part,
        "rule_id": state.rule_id,
        "state": state.state,
        "since_device_ms": state.since,
        "changed_device_ms": state.changed,
        "event_ids": list(state.event_ids),
        "version": state.version[:32],
        "memo": dict(state.memo),
    }


def _plain(memo: Mapping[str, Any]) -> Any:
    """As the database gives it back: lists for tuples."""
    return json.loads(json.dumps(dict(memo)))
