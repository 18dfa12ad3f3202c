"""Unknown field names stay within bounds whatever comes; what was kept once is kept on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.kinds import KINDS, all_fields
from core.reading import Message, Reading
from ingest.repeats import MAX_UNKNOWN_NAMES, Repeats, UnknownFields

T = 1_795_312_374_000


def message(names: set[str], *, kind: str = "elevator", dropped: int = 0) -> Message:
    """A message as it is decoded: its unknown values stand in its readings."""
    fields = {"signal_pct": 50.0, **dict.fromkeys(names, 1.0)}
    reading = Reading("s.d", kind, "", T, T, None, fields)
    return Message("s.d", kind, (reading,), (), frozenset(names), True, False, dropped)


def kept(after: Message) -> set[str]:
    return {name for reading in after.readings for name in reading.fields}


def test_a_million_different_names():
    unknown = UnknownFields()
    seen: set[str] = set()
    for number in range(1_000):
        names = {f"x{number}-{name}" for name in range(1_000)}
        after = unknown.limit(message(names))
        assert "signal_pct" in kept(after)
        seen |= kept(after)
    assert len(unknown) == MAX_UNKNOWN_NAMES
    assert len(seen) == MAX_UNKNOWN_NAMES + 1
    assert unknown.dropped == 1_000_000 - MAX_UNKNOWN_NAMES


def test_each_kind_has_its_own_bound():
    unknown = UnknownFields()
    for kind in KINDS:
        flood = {f"x{number}" for number in range(MAX_UNKNOWN_NAMES + 5)}
        assert len(kept(unknown.limit(message(flood, kind=kind)))) == MAX_UNKNOWN_NAMES + 1
    assert len(unknown) == MAX_UNKNOWN_NAMES * len(KINDS)


def test_what_was_left_out_by_the_decoder_is_counted_too():
    unknown = UnknownFields()
    unknown.limit(message(set(), dropped=7))
    unknown.limit(message({"a"}, dropped=3))
    assert unknown.dropped == 10
    assert len(unknown) == 1


def test_a_message_without_unknown_fields_is_left_as_it_is():
    before = message(set())
    assert UnknownFields().limit(before) is before


@given(st.lists(st.sets(st.integers(0, 1_500).map(str), max_size=200), max_size=12))
def test_names_come_first_served_and_stay(floods: list[set[str]]):
    unknown = UnknownFields()
    known: set[str] = set()
    dropped = 0
    for names in [{str(n) for n in range(900)}, *floods]:
        after = kept(unknown.limit(message(names))) - all_fields("elevator").keys()
        assert known & names <= after, "a name that was kept once is kept on"
        assert after <= names
        dropped += len(names - after)
        known |= after
        assert len(known) == len(unknown) <= MAX_UNKNOWN_NAMES
        assert after == names or len(known) == MAX_UNKNOWN_NAMES, "nothing is left out while there is room"
    assert unknown.dropped == dropped


@given(st.lists(st.tuples(st.sampled_from("tu"), st.binary(max_size=2)), max_size=40))
def test_a_repeat_is_the_same_bytes_on_the_same_topic(messages: list[tuple[str, bytes]]):
    repeats = Repeats()
    for number, (topic, payload) in enumerate(messages):
        assert repeats.is_repeat(topic, payload) == ((topic, payload) in messages[:number])
