"""The ticket's life: every state with every action against a table written by hand, and what may never happen."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import schema
from core.errors import IllegalMove, MissingField
from core.ticket import CLEAR_STATEMENT, MOVES, STEPS, State, allowed, move

S = State
LIFE: dict[tuple[State, str], State] = {
    (S.REPORTED, "file"): S.FILED,
    (S.FILED, "dispatch"): S.DISPATCHED,
    (S.DISPATCHED, "accept"): S.ACCEPTED,
    (S.ACCEPTED, "arrive"): S.ON_SITE,
    (S.ON_SITE, "done"): S.DONE,
    (S.DONE, "verify"): S.VERIFIED,
    (S.DONE, "send_back"): S.ACCEPTED,
    (S.VERIFIED, "send_back"): S.ACCEPTED,
    (S.VERIFIED, "close"): S.CLOSED,
    (S.REPORTED, "recover"): S.CLOSED,
    (S.FILED, "recover"): S.CLOSED,
    (S.DISPATCHED, "recover"): S.CLOSED,
    (S.CLOSED, "reopen"): S.FILED,
    **{(state, "false_alarm"): S.CLOSED for state in State if state is not S.CLOSED},
}
NEEDS_NOTE = {"send_back", "false_alarm"}
SAID = {"note": "looked at it", "clear": True}
ACTIONS = (*MOVES, "report", "", "CLOSE", "REOPEN")


@pytest.mark.parametrize("needs_clear", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", State)
def test_every_state_with_every_action(state: State, action: str, needs_clear: bool):
    target = LIFE.get((state, action))
    if target is None:
        with pytest.raises(IllegalMove) as caught:
            move(action, state, needs_clear=needs_clear, said=SAID)
        assert caught.value.allowed == allowed(state)
        assert state in str(caught.value)
        return
    row = move(action, state, needs_clear=needs_clear, said=SAID)
    assert (row.action, row.target) == (action, target)
    assert (row.outcome is not None) == (target is S.CLOSED)


@pytest.mark.parametrize(("state", "action"), sorted(LIFE))
@pytest.mark.parametrize("note", [None, "", "  \n", "why"])
@pytest.mark.parametrize("clear", [None, False, True, "true", 1, "passengers out, lift clear"])
@pytest.mark.parametrize("needs_clear", [False, True])
def test_what_must_be_said(state: State, action: str, note: object, clear: object, needs_clear: bool):
    """Only a true statement is one: the word "true" is not."""
    missing = ""
    if action in NEEDS_NOTE and note != "why":
        missing = "note"
    elif needs_clear and LIFE[state, action] is S.CLOSED and clear is not True:
        missing = "clear"
    said = {"note": note, "clear": clear}
    if missing:
        with pytest.raises(MissingField) as caught:
            move(action, state, needs_clear=needs_clear, said=said)
        assert caught.value.field == missing
    else:
        assert move(action, state, needs_clear=needs_clear, said=said).target is LIFE[state, action]


def test_the_refusal_says_the_statement():
    with pytest.raises(MissingField, match=CLEAR_STATEMENT):
        move("close", S.VERIFIED, needs_clear=True, said={})


SAYING: st.SearchStrategy[Mapping[str, object]] = st.fixed_dictionaries(
    {}, optional={"note": st.sampled_from(["", "why"]), "clear": st.sampled_from([None, False, 1, "yes", True])}
)


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), SAYING), max_size=40))
def test_no_sequence_of_moves_closes_an_entrapment_without_the_statement(steps):
    state = S.REPORTED
    stated = False
    for action, said in steps:
        try:
            state = move(action, state, needs_clear=True, said=said).target
        except (IllegalMove, MissingField):
            continue
        stated = stated or said.get("clear") is True
        assert state is not S.CLOSED or said.get("clear") is True
    assert state is not S.CLOSED or stated


@pytest.mark.parametrize("start", State)
def test_people_can_bring_every_ticket_to_its_end_and_none_back(start: State):
    seen = {start}
    waiting = [start]
    while waiting:
        state = waiting.pop()
        following = {MOVES[action].target for action in allowed(state)} - seen
        seen |= following
        waiting += following
    assert S.CLOSED in seen
    if start is S.CLOSED:
        assert seen == {S.CLOSED}


def test_moves_of_the_service_are_never_offered():
    offered = {action for state in State for action in allowed(state)}
    assert offered == {action for _, action in LIFE} - {"recover", "reopen"}
    assert allowed(S.CLOSED) == ()


def test_the_six_steps_in_order():
    numbers = [STEPS[state].number for state in State]
    assert numbers == sorted(numbers)
    assert set(numbers) == {1, 2, 3, 4, 5, 6}
    assert [STEPS[state].zh for state in (S.REPORTED, S.FILED, S.DISPATCHED, S.ON_SITE, S.DONE, S.CLOSED)] == [
        *("受理", "立案", "派遣", "处置", "核查", "结案")
    ]


def test_the_drawing_shows_exactly_these_moves():
    drawing = schema.documents()["docs/ticket-states.md"]
    drawn = [line.strip() for line in drawing.splitlines() if " --> " in line and "[*]" not in line]
    assert sorted(drawn) == sorted(f"{state} --> {target}: {action}" for (state, action), target in LIFE.items())
