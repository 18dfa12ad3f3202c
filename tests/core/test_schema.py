"""The published JSON Schema documents say what the decoder does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from core import schema
from core.errors import BadPayload
from core.fields import MAX_COUNT, specs
from core.kinds import KINDS
from core.payload import MAX_SNAPSHOTS, decode
from tests import payload_cases, wire
from tests.wire import RX


@cache
def validator(kind: str, channel: str) -> Draft202012Validator:
    name = f"{kind}.telemetry" if channel == "telemetry" else channel
    document = json.loads(schema.documents()[f"docs/wire/{name}.schema.json"])
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def decoder_accepts(kind: str, channel: str, document: Any) -> bool:
    try:
        decode(f"tizhuang/v1/s/{kind}/d/{channel}", json.dumps(document).encode(), RX)
    except BadPayload:
        return False
    return True


KIND_NAMES = sorted(KINDS)
GOOD: dict[str, Callable[[str], st.SearchStrategy[Any]]] = {
    "telemetry": lambda kind: wire.snapshots(kind) | st.lists(wire.snapshots(kind), min_size=1, max_size=3),
    "status": lambda kind: wire.statuses(),
    "event": wire.events,
}


@pytest.mark.parametrize("channel", sorted(GOOD))
@pytest.mark.parametrize("kind", KIND_NAMES)
@given(data=st.data())
def test_both_accept_what_is_good(kind: str, channel: str, data: st.DataObject):
    document = data.draw(GOOD[channel](kind))
    assert decoder_accepts(kind, channel, document)
    assert list(validator(kind, channel).iter_errors(document)) == []


FLAWS: list[Any] = [
    None,
    True,
    0,
    -1,
    1,
    2.5,
    -1e9 - 0.5,
    -(10**9),
    10**9,
    MAX_COUNT + 1,
    "",
    "on",
    "x" * 100,
    [],
    {},
    [1],
    {"a": 1},
]


def places(kind: str) -> Iterator[tuple[str, str, Callable[[Any], dict[str, Any]]]]:
    """Channel and name of every field of the contract, with a document that has any value there."""

    def inside(document: dict[str, Any], name: str) -> Callable[[Any], dict[str, Any]]:
        return lambda value: document | {name: value}

    part = KINDS[kind].part
    for name in (*specs(KINDS[kind].telemetry), "ts", "seq", *(["ports"] if part else [])):
        yield "telemetry", name, inside({"ts": RX}, name)
    for name in ("online", "firmware", "ts", "seq"):
        yield "status", name, inside({"ts": RX}, name)
    for name in ("id", "ts", "code", "table", "state", "seq"):
        yield "event", name, inside({"id": "e", "ts": RX, "code": "4", "table": "dny", "state": "raised"}, name)
    for name in (*specs(part), "port") if part else ():
        port = inside({"port": 1}, name)
        yield "telemetry", name, lambda value, port=port: {"ts": RX, "ports": [port(value)]}  # type: ignore[misc]


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_both_say_the_same_of_every_known_field_with_any_value(kind: str):
    both = {True: 0, False: 0}
    for channel, name, document_with in places(kind):
        for value in FLAWS:
            document = document_with(value)
            accepted = decoder_accepts(kind, channel, document)
            assert validator(kind, channel).is_valid(document) == accepted, (name, channel, value)
            both[accepted] += 1
    assert min(both.values()) > 50


@pytest.mark.parametrize("count", [0, 1, MAX_SNAPSHOTS, MAX_SNAPSHOTS + 1])
def test_both_count_snapshots_alike(count: int):
    document = [{"ts": RX}] * count
    assert validator("elevator", "telemetry").is_valid(document) == decoder_accepts("elevator", "telemetry", document)


BEYOND_A_SCHEMA = {
    "port-twice": "uniqueness by one key",
    "port-twice-in-backlog": "uniqueness by one key",
    "event-port-on-lift": "one document serves both kinds",
    "misplaced-bad": "the name is unknown at that place",
    "size-65537": "the length of the text",
    "unknown-10000": "the length of the text",
    "ts-exponent": "JSON Schema takes 1.7e12 for a whole number",
    "infinity-known": "1e999 is a number of JSON, and no double",
    "infinity-unknown": "1e999 is a number of JSON, and no double",
    "huge-integer-unknown": "a number of JSON, and no double",
    "nan-unknown": "not JSON; the field is unknown",
}


@pytest.mark.parametrize(
    "case",
    [case for case in payload_cases.load() if case.topic.count("/") == 5 and case.name not in BEYOND_A_SCHEMA],
    ids=lambda case: case.name,
)
def test_both_say_the_same_of_the_case_files(case: payload_cases.Case):
    _, _, _, kind, _, channel = case.topic.split("/")
    if kind not in KINDS or channel not in GOOD:
        return

    try:
        document = strict_json(case.payload)
    except (ValueError, RecursionError):
        assert case.rejected
        return
    told = [fault["field"] for fault in case.expect.get("rejected", ())]
    if told and all(field.startswith("topic") for field in told):
        return
    assert validator(kind, channel).is_valid(document) == (not case.rejected)


def strict_json(payload: bytes) -> Any:
    """JSON as the standard has it: UTF-8, whole characters, finite numbers. Raises ValueError or RecursionError."""

    def no_constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")

    document = json.loads(payload.decode(), parse_constant=no_constant)
    json.dumps(document, ensure_ascii=False).encode()
    return document
