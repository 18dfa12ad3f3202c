"""Properties of decode and encode: nothing but BadPayload escapes, and what goes in comes out."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.errors import BadPayload
from core.kinds import KINDS, all_fields, device_fields, part_fields
from core.kinds.status import EventPayload, Status
from core.payload import MAX_FAULTS_TOLD, decode, encode
from core.reading import Message
from tests import wire
from tests.wire import RX

CHANNELS = [(kind, channel) for kind in KINDS for channel in ("status", "telemetry", "event")]
KIND_NAMES = sorted(KINDS)


def topic(kind: str, channel: str) -> str:
    return f"tizhuang/v1/s/{kind}/d-1/{channel}"


def holds_its_promise(kind: str, channel: str, payload: bytes, rx: int = RX) -> Message | None:
    """Decodes; whatever comes out has the types and ranges of the contract, whatever does not says why in one line."""
    try:
        message = decode(topic(kind, channel), payload, rx)
    except BadPayload as error:
        faults = error.faults
    else:
        faults = ()
    if faults:
        assert len(faults) <= MAX_FAULTS_TOLD
        assert all(fault.reason for fault in faults)
        return None
    known = all_fields(kind)
    for reading in message.readings:
        assert reading.clock_ok or reading.ts <= rx
        for name, value in reading.fields.items():
            spec = known.get(name)
            if spec is None:
                assert type(value) in {bool, float, str}
                continue
            assert type(value) is spec.type
            assert spec.low is None or value >= spec.low  # type: ignore[operator]
            assert spec.high is None or value <= spec.high  # type: ignore[operator]
            assert not spec.choices or value in spec.choices
    unknown = {name for reading in message.readings for name in reading.fields if name not in known}
    assert unknown == message.unknown_fields
    assert [reading.ts for reading in message.readings] == sorted(reading.ts for reading in message.readings)
    return message


@given(st.sampled_from(CHANNELS), st.binary(max_size=200), st.integers(0, 2**53))
def test_any_bytes(where: tuple[str, str], payload: bytes, rx: int):
    holds_its_promise(*where, payload, rx)


@given(st.sampled_from(CHANNELS), wire.JSON)
def test_any_json(where: tuple[str, str], document: Any):
    holds_its_promise(*where, json.dumps(document).encode())


NEARLY = st.sampled_from(sorted({"ts", "seq", "ports", "port", "id", "code", "table", "state", "rx", "part"})) | (
    st.sampled_from(sorted({*all_fields("elevator"), *all_fields("charger")}))
)


@given(
    st.sampled_from(CHANNELS),
    st.dictionaries(NEARLY | st.text(max_size=5), wire.JSON, max_size=6),
    st.lists(st.dictionaries(NEARLY, wire.JSON, max_size=4) | wire.JSON, max_size=3),
    st.booleans(),
)
@example(("elevator", "telemetry"), {"floor": 3}, [{"port": 1}], True)
@example(("charger", "status"), {"online": True}, [{"port": 1}], True)
def test_nearly_good_json(where: tuple[str, str], fields: dict[str, Any], ports: list[Any], with_time: bool):
    """Names of the contract with any value, at any place."""
    document = {**fields, "ports": ports} | ({"ts": RX} if with_time else {})
    holds_its_promise(*where, json.dumps(document).encode())
    holds_its_promise(*where, json.dumps([document, fields]).encode())


@pytest.mark.parametrize("field", ["ts", "seq", "floor", "speed_mps", "door", "moving", "floor_label", "x"])
@pytest.mark.parametrize("digits", [sys.get_int_max_str_digits() + more for more in (-1, 0, 1)])
def test_integers_at_the_limit_of_what_python_prints(field: str, digits: int):
    """Where an error message shows what was sent, it must not fail on showing it."""
    document = f'{{"ts":{RX},"{field}":{"9" * digits}}}'
    message = holds_its_promise("elevator", "telemetry", document.encode())
    assert message is None or not message.clock_ok


@pytest.mark.parametrize("kind", KIND_NAMES)
@given(data=st.data())
def test_good_telemetry_comes_out_as_it_went_in(kind: str, data: st.DataObject):
    sent = data.draw(st.lists(wire.snapshots(kind), min_size=1, max_size=4))
    models = [KINDS[kind].telemetry.model_validate_json(json.dumps(one)) for one in sent]
    for payload in (encode(models), json.dumps(sent).encode(), *([encode(models[0])] if len(models) == 1 else [])):
        message = holds_its_promise(kind, "telemetry", payload)
        assert message is not None
        assert message.clock_ok
        found = [(one.ts, one.seq, one.part, dict(one.fields)) for one in message.readings]
        expected = []
        for one in sorted(sent, key=lambda snapshot: snapshot["ts"]):
            parts = [("", {name: one[name] for name in one if name not in {"ts", "seq", "ports"}})]
            parts += [(str(port["port"]), {n: port[n] for n in port if n != "port"}) for port in one.get("ports", ())]
            expected += [(one["ts"], one.get("seq"), part, values) for part, values in parts if values or not part]
        assert found == expected
        assert message.has_seq == all("seq" in one for one in sent)


@given(wire.statuses(), st.booleans())
def test_good_status_comes_out_as_it_went_in(sent: dict[str, Any], retained: bool):
    payload = encode(Status.model_validate_json(json.dumps(sent)))
    (reading,) = decode(topic("charger", "status"), payload, RX, retained=retained).readings
    assert dict(reading.fields) == {name: sent[name] for name in sent if name != "ts"}
    assert (reading.ts, reading.retained) == (sent["ts"], retained)
    assert reading.sign_of_life == (not retained and sent.get("online") is not False)


@pytest.mark.parametrize("kind", KIND_NAMES)
@given(data=st.data())
def test_good_events_come_out_as_they_went_in(kind: str, data: st.DataObject):
    sent = data.draw(wire.events(kind))
    payload = encode(EventPayload.model_validate_json(json.dumps(sent)))
    (event,) = decode(topic(kind, "event"), payload, RX).events
    assert (event.id, event.ts, event.table, event.code) == (sent["id"], sent["ts"], sent["table"], sent["code"])
    assert event.raised == (sent["state"] == "raised")
    assert event.part == str(sent.get("port", ""))


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=6, unique=True))
def test_stand_in_times_keep_the_order_and_never_meet(stamps: list[int]):
    payload = json.dumps([{"ts": ts, "floor": 1 + index} for index, ts in enumerate(stamps)]).encode()
    readings = decode(topic("elevator", "telemetry"), payload, RX).readings
    lost = [one for one in readings if not one.clock_ok]
    assert [one.ts for one in lost] == list(range(RX - len(lost) + 1, RX + 1))
    assert [stamps[int(one.fields["floor"]) - 1] for one in lost] == sorted(
        stamps[int(one.fields["floor"]) - 1] for one in lost
    )


@given(st.sampled_from(KIND_NAMES), wire.BELIEVABLE, st.integers(RX - 10**9, RX))
def test_the_same_message_always_gives_the_same_answer(kind: str, ts: int, rx: int):
    payload = json.dumps({"ts": ts, "signal_pct": 50}).encode()
    assert decode(topic(kind, "telemetry"), payload, rx) == decode(topic(kind, "telemetry"), payload, rx)


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_a_field_has_one_type_and_range_wherever_it_stands(kind: str):
    """The store has one column for it."""
    everywhere, on_part = device_fields(kind), part_fields(kind)
    for name in everywhere.keys() & on_part.keys():
        here, there = everywhere[name], on_part[name]
        assert (here.type, here.choices, here.unit, here.low, here.high) == (
            there.type,
            there.choices,
            there.unit,
            there.low,
            there.high,
        )
