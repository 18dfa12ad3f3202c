"""The ticket: work that somebody owes. Its state machine is the table in this file and nothing else.

The six steps are the closed loop (六步闭环) of Shanghai's urban grid (DOMAIN section 5):
受理 reported -> 立案 filed -> 派遣 dispatched -> 处置 handled -> 核查 verified -> 结案 closed.
Handling and checking have inner states: accepted, on site; done (waits for the check), verified (waits for closing).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from core.errors import IllegalMove, MissingField


class State(StrEnum):
    """Where a ticket is."""

    REPORTED = "reported"
    FILED = "filed"
    DISPATCHED = "dispatched"
    ACCEPTED = "accepted"
    ON_SITE = "on_site"
    DONE = "done"
    VERIFIED = "verified"
    CLOSED = "closed"


class Step(NamedTuple):
    """One of the six steps as law and screens name it."""

    number: int
    zh: str
    en: str


_REPORTED = Step(1, "受理", "reported")
_FILED = Step(2, "立案", "filed")
_DISPATCHED = Step(3, "派遣", "dispatched")
_HANDLED = Step(4, "处置", "handled")
_CHECKED = Step(5, "核查", "verified")
_CLOSED = Step(6, "结案", "closed")

STEPS: Final = {
    State.REPORTED: _REPORTED,
    State.FILED: _FILED,
    State.DISPATCHED: _DISPATCHED,
    State.ACCEPTED: _HANDLED,
    State.ON_SITE: _HANDLED,
    State.DONE: _CHECKED,
    State.VERIFIED: _CHECKED,
    State.CLOSED: _CLOSED,
}


class Move(NamedTuple):
    """One row of the table: from which states an action leads where, and what must be said with it."""

    action: str
    sources: tuple[State, ...]
    target: State
    requires: tuple[str, ...] = ()
    """Fields that must not be empty. `clear` is asked for on top by every move that closes an entrapment."""
    outcome: str | None = None
    by_person: bool = True
    """False: a move of the service itself, never offered to people."""


_OPEN = tuple(state for state in State if state is not State.CLOSED)
_S = State

MOVES: Final = {
    move.action: move
    for move in (
        Move("file", (_S.REPORTED,), _S.FILED),
        Move("dispatch", (_S.FILED,), _S.DISPATCHED),
        Move("accept", (_S.DISPATCHED,), _S.ACCEPTED),
        Move("arrive", (_S.ACCEPTED,), _S.ON_SITE),
        Move("done", (_S.ON_SITE,), _S.DONE),
        Move("verify", (_S.DONE,), _S.VERIFIED),
        Move("send_back", (_S.DONE, _S.VERIFIED), _S.ACCEPTED, ("note",)),
        Move("close", (_S.VERIFIED,), _S.CLOSED, (), "fixed"),
        Move("false_alarm", _OPEN, _S.CLOSED, ("note",), "false_alarm"),
        Move("recover", (_S.REPORTED, _S.FILED, _S.DISPATCHED), _S.CLOSED, (), "recovered", by_person=False),
        Move("reopen", (_S.CLOSED,), _S.FILED, by_person=False),
    )
}

CLEAR_STATEMENT: Final = "passengers out, lift clear"
"""What a person states before an entrapment may be closed (EN 81-28: the alarm stands until somebody verifies)."""


def allowed(state: State) -> tuple[str, ...]:
    """Actions that people can take now, in the order of the table."""
    return tuple(move.action for move in MOVES.values() if move.by_person and state in move.sources)


def move(action: str, state: State, *, needs_clear: bool, said: Mapping[str, object]) -> Move:
    """The row of the table for this action, or IllegalMove / MissingField. Changes nothing.

    `needs_clear`: the ticket belongs to an entrapment. `said`: what came with the action (`note`, `clear`, ...).
    """
    row = MOVES.get(action)
    if row is None or state not in row.sources:
        raise IllegalMove(action, state, allowed(state))
    for name in row.requires:
        if not str(said.get(name) or "").strip():
            raise MissingField(action, name, "say why in a few words")
    if needs_clear and row.target is State.CLOSED and said.get("clear") is not True:
        raise MissingField(action, "clear", f"a person must state '{CLEAR_STATEMENT}' before an entrapment is closed")
    return row
