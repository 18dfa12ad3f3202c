"""Every case file of `tests/cases/payload` against the decoder."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import BadPayload
from core.payload import decode
from core.reading import Event, Message, Reading
from tests.payload_cases import Case, load

CASES = load()


def told(reading: Reading) -> dict[str, Any]:
    """A reading as case files write it; what is ordinary is left out there."""
    return {
        "ts": reading.ts,
        "seq": reading.seq,
        "part": reading.part,
        "fields": dict(reading.fields),
        "clock_ok": reading.clock_ok,
        "sign_of_life": reading.sign_of_life,
    }


ORDINARY = {"seq": None, "part": "", "clock_ok": True, "sign_of_life": True}
EVENT_KEYS = ("part", "ts", "seq", "id", "table", "code", "fault", "raised", "clock_ok")


@pytest.mark.parametrize("case", [case for case in CASES if case.rejected], ids=lambda case: case.name)
def test_rejected(case: Case):
    with pytest.raises(BadPayload) as caught:
        decode(case.topic, case.payload, case.rx, retained=case.retained)
    found = caught.value.faults
    expected = case.expect["rejected"]
    assert [fault.field for fault in found] == [fault["field"] for fault in expected]
    for fault, wanted in zip(found, expected, strict=True):
        assert wanted["reason_contains"], "an empty text is contained in every reason"
        assert wanted["reason_contains"] in fault.reason
        assert wanted["reason_contains"] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", [case for case in CASES if not case.rejected], ids=lambda case: case.name)
def test_understood(case: Case):
    message = decode(case.topic, case.payload, case.rx, retained=case.retained)
    _, site, kind, device, _ = case.topic.rsplit("/", 4)
    items: list[Reading | Event] = [*message.readings, *message.events]
    for item in items:
        assert (item.device_id, item.kind) == (f"{site}.{device}", kind)
        assert (item.rx, item.retained) == (case.rx, case.retained)
        assert type(item.ts) is int
    expected = case.expect
    if "counts" in expected:
        found = _counts(message)
        assert {name: found[name] for name in expected["counts"]} == expected["counts"]
        assert message.clock_ok
        return
    assert [told(one) for one in message.readings] == [ORDINARY | one for one in expected.get("readings", ())]
    events = [{"clock_ok": True} | one for one in expected.get("events", ())]
    assert [_of_event(one) for one in message.events] == events
    assert message.unknown_fields == frozenset(expected.get("unknown", ()))
    assert message.unknown_dropped == expected.get("dropped", 0)
    assert message.clock_ok == all(item.clock_ok for item in items)
    for reading in message.readings:  # 1 == 1.0 == True in Python, and not in a column
        (wanted,) = (
            one for one in expected["readings"] if (one["ts"], one.get("part", "")) == (reading.ts, reading.part)
        )
        assert {name: type(value) for name, value in reading.fields.items()} == {
            name: type(value) for name, value in wanted["fields"].items()
        }


def _counts(message: Message) -> dict[str, int]:
    texts = [len(value) for one in message.readings for value in one.fields.values() if isinstance(value, str)]
    return {
        "readings": len(message.readings),
        "fields": max(len(one.fields) for one in message.readings),
        "unknown": len(message.unknown_fields),
        "dropped": message.unknown_dropped,
        "text": max(texts, default=0),
    }


def _of_event(event: Event) -> dict[str, Any]:
    return {key: getattr(event, key) for key in EVENT_KEYS}


def test_names_of_cases_are_sentences_of_their_own():
    assert len({case.name for case in CASES}) == len(CASES) > 100
    assert {case.rejected for case in CASES} == {True, False}
