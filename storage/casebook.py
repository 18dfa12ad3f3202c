"""What a batch of the engine's changes does to incidents, tickets, their history and the outbox.

A batch is worked out in memory and written at the end, so it costs about ten statements however long it is.

A change that was written before is known by its line of history: same fault, rule, kind of line and device time. So
batches that were cut differently by two processes, or came again after a lost answer, add nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection

from core import ticket as machine
from core.errors import IllegalMove, NotFound
from core.incident import Change
from core.ticket import State
from storage import cases, outbox
from storage.cases import Case, Fault, Line
from storage.silences import Silence, active
from storage.tables import ticket_history

SELF: Final = "tizhuang"
"""The actor of what the service does by itself."""

LINK_MS: Final = 30 * 86_400_000
"""A fault that comes back so much later is a new one: its incident names no previous one."""

_REOPENS: Final = ("fixed", "recovered")
"""Outcomes that a quick return refutes. What people called a false alarm, or whose rule was deleted, is judged anew."""

STILL_TRUE: Final = "still-true"
"""Why a change pages that was history before: a sample in time says that the fault stands."""

_LINES: Final = {"raise": ("report", "joined", "reopen"), "ease": ("eased",), "clear": ("cleared",)}
_REMARKS: Final = ("unstable", "settled")
"""Reasons that are a line of history of their own."""


@dataclass
class Casebook:
    """One batch. `open`, `take` each change in order, `write`."""

    connection: Connection
    now: int
    cases: dict[Fault, Case] = field(default_factory=dict)
    contractors: dict[str, str | None] = field(default_factory=dict)
    """By device id; a device that nobody knows is missing."""
    silences: Sequence[Silence] = ()
    written: set[Line] = field(default_factory=set)
    """Lines of history that stood there before."""
    opened: list[Case] = field(default_factory=list)
    touched: dict[int, Case] = field(default_factory=dict)
    """By id: cases from the database that changed."""
    lines: list[tuple[Case, dict[str, Any]]] = field(default_factory=list)
    letters: list[tuple[Case, outbox.Draft]] = field(default_factory=list)

    @classmethod
    def open(cls, connection: Connection, changes: Iterable[Change], *, now: int, look_back: bool) -> Casebook:
        """Reads what the changes are about. `look_back`: some of them may have been written before."""
        book = cls(connection, now)
        telling = [change for change in changes if change.effect != "none" or change.reason in _REMARKS]
        if telling:
            rising = {change.state.device_id for change in telling if change.effect == "raise"}
            book.cases = cases.read_cases(connection, {Fault.of(change) for change in telling})
            book.contractors = cases.read_contractors(connection, rising, now=now)
            if look_back and book.cases:
                devices, times = {change.state.device_id for change in telling}, {change.at for change in telling}
                book.written = cases.read_lines(connection, devices, times)
            book.silences = active(connection, now)
        return book

    def is_written(self, change: Change) -> bool:
        """Whether this change was applied before."""
        actions = _LINES.get(change.effect) or tuple(name for name in _REMARKS if name == change.reason)
        fault, rule = Fault.of(change), change.finding.rule_id
        return any((fault, action, change.at, rule) in self.written for action in actions)

    def take(self, change: Change) -> None:
        """Works one change out. Raises NotFound for a device that nobody knows."""
        if change.effect == "none" and change.reason not in _REMARKS:
            return
        if self.is_written(change):
            return
        case = self.cases.get(Fault.of(change))
        if change.reason == STILL_TRUE and (case is None or not case.is_open):
            return  # a person has closed it, and knows
        if change.effect == "raise":
            case = self._raise(case, change)
        elif case is not None and change.effect == "ease":
            self._ease(case, change)
        elif case is not None and change.effect == "clear":
            self._clear(case, change)
        if case is not None and case.is_open and change.reason in _REMARKS:
            self._line(case, change.reason, at=change.at, facts=_said(change))

    def write(self) -> None:
        """Everything that was worked out. What closes is written before what opens: one open incident per fault."""
        cases.write_touched(self.connection, [case for _, case in sorted(self.touched.items())], now=self.now)
        cases.write_opened(self.connection, self.opened)
        if self.lines:
            rows = [{**row, "ticket_id": case.ticket["id"]} for case, row in self.lines]
            self.connection.execute(ticket_history.insert(), rows)
        outbox.put(self.connection, [_addressed(case, draft) for case, draft in self.letters], now=self.now)

    # --- one change ---------------------------------------------------------------------------------------------------

    def _raise(self, case: Case | None, change: Change) -> Case:
        if case is not None and case.is_open:
            self._join(case, change)
            return case
        if case is not None and _comes_back(case.incident, change):
            self._reopen(case, change)
            return case
        return self._open(case, change)

    def _open(self, before: Case | None, change: Change) -> Case:
        """A new incident with its ticket: reported, filed, and dispatched where a contractor is under contract."""
        row = _incident(change, self.now)
        linked = before is not None and change.at - _last_known(before.incident) <= LINK_MS
        contractor_id = self._contractor(change.state.device_id)
        work = {"id": None, "state": None, "contractor_id": contractor_id, "created": self.now, "changed": self.now}
        case = Case(row, work, before if linked else None)
        self.cases[Fault.of(change)] = case
        self.opened.append(case)
        facts = _said(change) | dict(change.finding.ticket)
        self._line(case, "report", to=State.REPORTED, at=change.at, facts=facts)
        self._move(case, "file")
        self._dispatch(case, contractor_id)
        self._tell(case, "late" if change.late else "opened")
        return case

    def _reopen(self, case: Case, change: Change) -> None:
        """The fault was not gone for long: the same incident and ticket go on."""
        found = case.incident
        found.update(
            closed=None,
            cleared_device_ms=None,
            outcome=None,
            reason="",
            reopened=found["reopened"] + 1,
            severity=_severity(change),
            needs_clear=found["needs_clear"] or change.finding.needs_clear,
            rule_version=_version(change) or found["rule_version"],
        )
        self._move(case, "reopen", at=change.at, facts=_said(change) | dict(change.finding.ticket))
        self._dispatch(case, case.ticket["contractor_id"] or self._contractor(change.state.device_id))
        self._tell(case, "late" if change.late else "reopened")

    def _join(self, case: Case, change: Change) -> None:
        """A further rule of the group fires, or it fires again: the same incident, at the higher urgency of the two."""
        found = case.incident
        before = (found["severity"], found["needs_clear"], found["cleared_device_ms"])
        if str(change.finding.severity) < found["severity"]:
            found.update(_words(change))  # who reads it must know the worst of it
        found["severity"] = min(found["severity"], _severity(change))
        found["needs_clear"] = found["needs_clear"] or change.finding.needs_clear
        found["cleared_device_ms"], found["reason"] = None, ""
        self._line(case, "joined", at=change.at, facts=_said(change))
        if found["late"] and not change.late:
            found["late"] = False  # it was history when it reached us; now we know that it stands
            self._tell(case, "opened")
        elif before != (found["severity"], found["needs_clear"], None):
            self._tell(case, "changed")

    def _ease(self, case: Case, change: Change) -> None:
        """It goes on less urgent. What a person must end stays as urgent as it was."""
        found, severity = case.incident, _severity(change)
        if not case.is_open or found["needs_clear"] or severity <= found["severity"]:
            return
        facts = _said(change) | {"severity": severity, "before": found["severity"]}
        found["severity"] = severity
        self._line(case, "eased", at=change.at, facts=facts)
        self._tell(case, "changed")

    def _clear(self, case: Case, change: Change) -> None:
        """No rule of the group fires any more. Only what telemetry may close and nobody has taken on closes by itself.

        A person may have closed it while it was still true: then the line says since when it is really over, which
        decides whether the next one is a return of this one.
        """
        found = case.incident
        if found["cleared_device_ms"] is not None:
            return
        found["cleared_device_ms"] = change.at
        facts = {"rule": change.finding.rule_id} | ({"reason": change.reason} if change.reason else {})
        self._line(case, "cleared", at=change.at, facts=facts)
        if not case.is_open:
            return
        found["reason"] = change.reason[:32]
        self._tell(case, "cleared")
        deleted = change.reason == "rule-deleted"
        if not found["needs_clear"] and (deleted or change.finding.close == "telemetry"):
            self._close(case, "rule_deleted" if deleted else "recovered", {"reason": change.reason} if deleted else {})

    def _close(self, case: Case, outcome: str, facts: Mapping[str, Any]) -> None:
        try:
            self._move(case, "recover", facts=facts)
        except IllegalMove:
            return  # a contractor is on it and says when it is done
        case.incident.update(closed=self.now, outcome=outcome)
        self._tell(case, "closed")

    def _dispatch(self, case: Case, contractor_id: str | None) -> None:
        if contractor_id:
            case.ticket["contractor_id"] = contractor_id
            self._move(case, "dispatch", facts={"contractor": contractor_id})

    def _contractor(self, device_id: str) -> str | None:
        if device_id not in self.contractors:
            raise NotFound("device", device_id)
        return self.contractors[device_id]

    # --- lines and letters --------------------------------------------------------------------------------------------

    def _move(self, case: Case, action: str, *, at: int | None = None, facts: Mapping[str, Any] = {}) -> None:
        move = machine.move(action, State(case.ticket["state"]), needs_clear=False, said={})
        self._line(case, action, to=move.target, at=at, facts=facts)

    def _line(
        self, case: Case, action: str, *, to: str | None = None, at: int | None = None, facts: Mapping[str, Any]
    ) -> None:
        """A line of history; without `to` it moves nothing: something that the device did."""
        before = case.ticket["state"]
        case.ticket.update(state=to or before, changed=self.now)
        row = {
            "at": self.now,
            "device_ms": at,
            "actor": SELF,
            "action": action,
            "from_state": before,
            "to_state": case.ticket["state"],
            "note": "",
            "facts": dict(facts),
        }
        self.lines.append((case, row))
        if case.incident["id"] is not None:
            self.touched[case.incident["id"]] = case

    def _tell(self, case: Case, kind: str) -> None:
        draft, by = outbox.draft(case.incident, case.ticket, kind, self.silences)
        self.letters.append((case, draft))
        if by is not None and kind != "cleared":
            self._line(case, "silenced", facts=silenced(by))


def silenced(by: Silence) -> dict[str, Any]:
    """Facts of the line that says who is not told, and until when."""
    return {"silence": by.id, "kind": by.kind, "until": by.ends, "why": by.reason}


def _incident(change: Change, now: int) -> dict[str, Any]:
    finding, state = change.finding, change.state
    return {
        "id": None,
        "device_id": state.device_id,
        "part": state.part,
        "fault_group": finding.group,
        "rule_id": finding.rule_id,
        "severity": _severity(change),
        **_words(change),
        "needs_clear": finding.needs_clear,
        "opened_device_ms": change.at,
        "opened": now,
        "late": change.late,
        "evidence": dict(change.evidence),
        "cleared_device_ms": None,
        "closed": None,
        "outcome": None,
        "reopened": 0,
        "reason": "",
        "rule_version": _version(change),
    }


def _words(change: Change) -> dict[str, str]:
    """Cut to what fits: PostgreSQL refuses what is too long, and an alarm must not fail by that."""
    title, what_to_do = change.finding.title, change.finding.what_to_do
    return {
        "title_zh": title.zh[:200],
        "title_en": title.en[:200],
        "what_to_do_zh": what_to_do.zh[:1_000],
        "what_to_do_en": what_to_do.en[:1_000],
    }


def _said(change: Change) -> dict[str, Any]:
    """Facts of a line: the evidence, the rule, and the reason where there is one."""
    reason = {"reason": change.reason} if change.reason else {}
    return {**change.evidence, "rule": change.finding.rule_id, **reason}


def _severity(change: Change) -> str:
    return str(change.severity or change.finding.severity)


def _version(change: Change) -> str:
    return str(change.evidence.get("version") or "")[:32]


def _last_known(found: Mapping[str, Any]) -> int:
    """Since when the fault is over, by the device's clock; where nobody knows, when it began.

    Our own time of closing would be wrong in a replay, and in a backlog that comes hours late.
    """
    cleared: int | None = found["cleared_device_ms"]
    begun: int = found["opened_device_ms"]
    return begun if cleared is None else cleared


def _comes_back(found: Mapping[str, Any], change: Change) -> bool:
    """Whether this is the old fault again, and not a new one."""
    gone_ms = change.at - _last_known(found)
    return found["outcome"] in _REOPENS and 0 <= gone_ms <= change.finding.reopen_ms and change.finding.reopen_ms > 0


def _addressed(case: Case, draft: outbox.Draft) -> outbox.Draft:
    """The draft with the ids, which a new case has only now."""
    ids = {"incident": case.incident["id"], "ticket": case.ticket["id"]}
    return draft._replace(incident_id=case.incident["id"], payload={**draft.payload, **ids})
