"""MQTT bytes to readings and back. Pure: the same topic, bytes and receive time always give the same answer.

Everything is validated here, once. Behind `decode` every value has the type and range that the contract promises.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Annotated, Any, Final, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError, create_model

from core import clock, faults, topics
from core.errors import BadPayload, Fault
from core.fields import Wire, as_dict, specs
from core.kinds import KINDS, Kind, all_fields
from core.kinds.status import EventPayload, Status
from core.reading import Event, Message, Reading, Value
from core.topics import Address

MAX_PAYLOAD_BYTES: Final = 65_536
MAX_SNAPSHOTS: Final = 1_000
MAX_EXTRA_FIELDS: Final = 64
"""Unknown fields kept of one snapshot part; further ones are only counted."""
MAX_NAME: Final = 64
MAX_TEXT: Final = 1_024
MAX_FAULTS_TOLD: Final = 10

_NONE: Final[frozenset[str]] = frozenset()
_NOTHING: Final[dict[int, int]] = {}


def decode(topic: str, payload: bytes, rx: int, *, retained: bool = False) -> Message:
    """One MQTT message as readings and events.

    `rx` is the receive time in Unix ms. It also stands in for a device time that cannot be believed (before 2020 or
    more than 5 minutes ahead); such readings say `clock_ok=False`. Raises BadPayload with every fault found.
    """
    route = _route(topic)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise BadPayload.one(f"{len(payload)} bytes; a payload has at most {MAX_PAYLOAD_BYTES}")
    address, kind, model = route.address, route.kind, route.model
    if model is None:
        return _event(address, _parse(_event_validator(), payload), rx, retained)
    if model is not Status and payload.lstrip()[:1] == b"[":
        return _telemetry(address, kind, model, _parse(_list_validator(model), payload), rx, retained)
    snapshot = _parse(_validator(model), payload)
    if route.plain.issuperset(snapshot) and None not in snapshot.values() and clock.believable(snapshot["ts"], rx):
        return _plain_message(route, snapshot, rx, retained)
    return _telemetry(address, kind, model, (snapshot,), rx, retained)


def encode(payload: Wire | Sequence[Wire]) -> bytes:
    """A payload model (or a backlog of them) as the bytes of the wire contract."""
    if isinstance(payload, Wire):
        return payload.model_dump_json(exclude_none=True).encode()
    return b"[" + b",".join(encode(one) for one in payload) + b"]"


class _Route(NamedTuple):
    """What a topic says of the messages on it."""

    address: Address
    device_id: str
    kind: Kind
    model: type[Wire] | None
    """Of a snapshot; None where events come."""
    plain: frozenset[str]
    """Names in a snapshot of which nothing but the device itself speaks, within the contract."""


@lru_cache(65_536)
def _route(topic: str) -> _Route:
    """Raises BadPayload."""
    address = topics.parse(topic)
    kind = KINDS.get(address.kind)
    if kind is None:
        raise BadPayload.one(f"unknown kind '{address.kind}'; known: {', '.join(KINDS)}", "topic.kind")
    model = {"event": None, "status": Status}.get(address.channel, kind.telemetry)
    plain = frozenset(specs(model)) | {"ts", "seq"} if model else _NONE
    return _Route(address, address.device_id, kind, model, plain)


@dataclass(slots=True)
class _Extras:
    """Unknown fields met so far in one message."""

    names: set[str] = field(default_factory=set)
    dropped: int = 0
    faults: list[Fault] = field(default_factory=list)


def _plain_message(route: _Route, snapshot: dict[str, Any], rx: int, retained: bool) -> Message:
    """What `_telemetry` makes of the message that nearly all messages are, without asking what else it could be."""
    ts, seq = snapshot.pop("ts"), snapshot.pop("seq", None)
    reading = Reading(route.device_id, route.kind.name, "", ts, rx, seq, snapshot, True, retained)
    return Message(route.device_id, route.kind.name, (reading,), (), _NONE, True, seq is not None)


def _telemetry(
    address: Address, kind: Kind, model: type[Wire], snapshots: Sequence[dict[str, Any]], rx: int, retained: bool
) -> Message:
    readings: list[Reading] = []
    extras = _Extras()
    device_id = address.device_id
    stand_in = _stand_in_times(snapshots, rx)
    has_seq = True
    for index, snapshot in enumerate(snapshots):
        where = f"[{index}]." if len(snapshots) > 1 else ""
        believed = index not in stand_in
        ts, seq = snapshot.pop("ts"), snapshot.pop("seq", None)
        ts = stand_in.get(index, ts)
        has_seq = has_seq and seq is not None
        ports = snapshot.pop("ports", ()) if "ports" in model.model_fields else ()
        values = _values(kind, model, snapshot, where, extras)
        readings.append(Reading(device_id, kind.name, "", ts, rx, seq, values, believed, retained))
        for part, fields, part_where in _parts(ports, where, extras.faults):
            assert kind.part is not None
            values = _values(kind, kind.part, fields, part_where, extras)
            if values:
                readings.append(Reading(device_id, kind.name, part, ts, rx, seq, values, believed, retained))
    if extras.faults:
        raise BadPayload(extras.faults[:MAX_FAULTS_TOLD])
    if len(snapshots) > 1:
        readings.sort(key=lambda reading: reading.ts)  # a backlog may come newest first
    unknown = frozenset(extras.names) if extras.names else _NONE
    return Message(device_id, kind.name, tuple(readings), (), unknown, not stand_in, has_seq, extras.dropped)


def _stand_in_times(snapshots: Sequence[dict[str, Any]], rx: int) -> dict[int, int]:
    """Times for snapshots whose own cannot be believed, by index: the newest is now, the others before it.

    They stay in the order of their own times (a device that lost its clock still counts up), one millisecond apart.
    """
    lost = [index for index, snapshot in enumerate(snapshots) if not clock.believable(snapshot["ts"], rx)]
    if not lost:
        return _NOTHING
    lost.sort(key=lambda index: snapshots[index]["ts"], reverse=True)
    return {index: rx - age for age, index in enumerate(lost)}


def _parts(
    ports: Iterable[dict[str, Any]], where: str, found: list[Fault]
) -> Iterable[tuple[str, dict[str, Any], str]]:
    """Each part of a snapshot with its name and its place in the payload."""
    seen: set[int] = set()
    for index, fields in enumerate(ports):
        part_where = f"{where}ports[{index}]."
        port = fields.pop("port")
        if port in seen:
            found.append(Fault(f"{part_where}port", f"port {port} stands twice in one snapshot"))
        seen.add(port)
        yield str(port), fields, part_where


def _values(kind: Kind, model: type[Wire], sent: dict[str, Any], where: str, extras: _Extras) -> Mapping[str, Value]:
    """The fields that were sent, known ones first. Faulty unknown values are added to `extras.faults`.

    A name that the contract knows from another place (`power_w` beside `ports`) has the type and range it has there.
    """
    own = specs(model).keys()
    if sent.keys() <= own:
        return sent if None not in sent.values() else {name: value for name, value in sent.items() if value is not None}
    values: dict[str, Value] = {name: sent[name] for name in own if sent.get(name) is not None}
    known = all_fields(kind.name)
    kept = 0
    for name, raw in sent.items():
        if raw is None or name in own:
            continue
        if name in known:
            values |= _misplaced(kind.name, name, raw, where, extras.faults)
            continue
        if kept == MAX_EXTRA_FIELDS or not 0 < len(name) <= MAX_NAME or not name.isprintable():
            extras.dropped += 1
            continue
        value = _plain(raw)
        if value is None:
            extras.faults.append(Fault(f"{where}{name}", "must be a finite number"))
            continue
        values[name] = value
        extras.names.add(name)
        kept += 1
    return values


def _misplaced(kind: str, name: str, raw: Any, where: str, found: list[Fault]) -> dict[str, Value]:
    """A field of the contract that stands where the contract does not put it."""
    try:
        checked = _anywhere(kind).model_validate({name: raw})
    except ValidationError as error:
        found += [Fault(where + fault.field, fault.reason) for fault in _faults(error)]
        return {}
    return {name: getattr(checked, name)}


@cache
def _anywhere(kind: str) -> type[Wire]:
    """All fields of a kind, of the device and its parts, in one model."""
    models = (KINDS[kind].part, KINDS[kind].telemetry, Status)
    fields = {
        name: (model.model_fields[name].annotation, model.model_fields[name])
        for model in models
        if model
        for name in specs(model)
    }
    return create_model(f"{kind}_fields", __base__=Wire, **fields)  # type: ignore[call-overload, no-any-return]


def _plain(raw: Any) -> Value | None:
    """An unknown value as number or text; nested ones as JSON text. None: it holds a number that is not finite."""
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, int | float):
        try:
            number = float(raw)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    if isinstance(raw, str):
        return raw[:MAX_TEXT]
    try:
        return json.dumps(raw, ensure_ascii=False, allow_nan=False, separators=(",", ":"))[:MAX_TEXT]
    except ValueError:
        return None


def _event(address: Address, payload: EventPayload, rx: int, retained: bool) -> Message:
    if payload.port is not None and KINDS[address.kind].part is None:
        raise BadPayload.one(f"a {KINDS[address.kind].en} has no ports", "port")
    believed = clock.believable(payload.ts, rx)
    event = Event(
        device_id=address.device_id,
        kind=address.kind,
        part="" if payload.port is None else str(payload.port),
        ts=payload.ts if believed else rx,
        rx=rx,
        seq=payload.seq,
        id=payload.id,
        table=payload.table,
        code=payload.code,
        fault=faults.meaning(payload.table, payload.code, address.kind),
        raised=payload.state == "raised",
        clock_ok=believed,
        retained=retained,
    )
    # An event's id recognises a repeat as a sequence number does. Unknown fields of an event have no place to be kept.
    dropped = len(payload.__pydantic_extra__ or ())
    return Message(address.device_id, address.kind, (), (event,), frozenset(), believed, True, dropped)


@cache
def _validator(model: type[Wire]) -> Any:
    """Of a snapshot, as the dictionary of what was sent."""
    return TypeAdapter(as_dict(model)).validator


@cache
def _list_validator(model: type[Wire]) -> Any:
    one: Any = as_dict(model)
    return TypeAdapter(Annotated[list[one], Field(min_length=1, max_length=MAX_SNAPSHOTS)]).validator


@cache
def _event_validator() -> Any:
    return TypeAdapter(EventPayload).validator


def _parse(validator: Any, payload: bytes) -> Any:
    try:
        return validator.validate_json(payload)
    except ValidationError as error:
        raise BadPayload(_faults(error, payload)) from None


def _faults(error: ValidationError, payload: bytes = b"") -> list[Fault]:
    """Pydantic's findings in our words: a path like `ports[2].power_w`, a reason, and what was sent."""
    found = []
    for detail in error.errors(include_url=False)[:MAX_FAULTS_TOLD]:
        if detail["type"] == "json_invalid":
            return [Fault("", _not_json(payload, detail["msg"]))]
        given = detail.get("input")
        sent = "" if detail["type"] == "missing" or isinstance(given, Mapping | list) else f" (sent: {given!r:.60})"
        found.append(Fault(_path(detail["loc"]), detail["msg"][0].lower() + detail["msg"][1:] + sent))
    return found


def _not_json(payload: bytes, message: str) -> str:
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte {error.start} is 0x{payload[error.start]:02x}"
    return f"not JSON: {message.removeprefix('Invalid JSON: ')}"


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path
