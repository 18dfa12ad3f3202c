"""The steps of a test case: what devices say and when, short-hand written out, and what the clock on the wall shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from alerts.player import DELAY_MS, Actor, Said, Wall, instant_ms
from alerts.rulebook import RuleBook
from alerts.rulefile import Key, Node, Place, did_you_mean, flag, mapping, number, text
from alerts.shorthand import value_of, values_of
from core.faults import FAULTS, TABLES, meaning
from core.fields import FieldSpec
from core.kinds import device_fields, part_fields
from core.reading import Event, Reading, Value

TABLE_OF: Final = {"elevator": "gbt24476", "charger": "dny"}
"""The code table in which events of a kind are told."""

MOST_PORTS: Final = 64


class Cast(NamedTuple):
    """What steps are about."""

    devices: Mapping[str, Actor]
    start: int
    """Second zero, Unix ms."""
    books: Mapping[str, RuleBook]
    """Rules that a `reload` may name."""
    numbered: bool
    """Whether the devices number their messages, in the order in which they were said."""


class _Told(NamedTuple):
    """An event: which code of which table it is, and whether it is raised."""

    part: str
    id: str
    table: str
    code: str
    fault: str | None
    raised: bool


class _Words(NamedTuple):
    """A message before it has its number."""

    device_id: str
    ts: int
    rx: int
    seq: int | None
    parts: tuple[tuple[str, Mapping[str, Value]], ...]
    """Fields by part."""
    event: _Told | None
    clock_ok: bool
    retained: bool


def steps_of(nodes: Sequence[Node], cast: Cast, place: Place) -> Iterator[Said | Wall]:
    """The steps in the order in which they reach us. Flaws are noted down, and such steps left out."""
    found: list[_Words | Wall] = []
    for is_series, group in groupby(enumerate(nodes), key=lambda one: _is_series(one[1])):
        if is_series:  # series that stand one behind the other run side by side
            run = [words for index, node in group for words in _series(node, cast, place.at(f"steps[{index}]"))]
            run.sort(key=lambda one: one.ts)
            found += run
        else:
            made = [_step(node, index, cast, place.at(f"steps[{index}]")) for index, node in group]
            found += [one for one in made if one is not None]
    said = [one for one in found if isinstance(one, _Words)]
    numbers = _numbers(said) if cast.numbered else {}
    for one in found:
        yield one if isinstance(one, Wall) else _message(one, numbers.get(id(one), one.seq), cast)


def _numbers(said: Sequence[_Words]) -> dict[int, int | None]:
    """The number of each message: by device, in the order of device time."""
    found: dict[int, int | None] = {}
    for device_id in {one.device_id for one in said}:
        mine = sorted((one for one in said if one.device_id == device_id), key=lambda one: one.ts)
        found |= {id(one): index if one.seq is None else one.seq for index, one in enumerate(mine)}
    return found


def _message(one: _Words, seq: int | None, cast: Cast) -> Said:
    kind = cast.devices[one.device_id].kind
    head = (one.device_id, kind)
    if one.event is None:
        readings = (
            Reading(*head, part, one.ts, one.rx, seq, fields, one.clock_ok, one.retained) for part, fields in one.parts
        )
        return Said(tuple(readings))
    told = one.event
    event = Event(
        *head,
        told.part,
        one.ts,
        one.rx,
        seq,
        told.id,
        told.table,
        told.code,
        told.fault,
        told.raised,
        one.clock_ok,
        one.retained,
    )
    return Said((event,))


# --- what may stand in a step ----------------------------------------------------------------------------------------


def _instant(node: Node, place: Place) -> int | None:
    try:
        return instant_ms(str(node.data))
    except ValueError as error:
        place.flaw(node.spot, str(error))
        return None


def _as_is(node: Node, place: Place) -> Node:
    return node


_PORT: Final = number(1, MOST_PORTS, "3")
_SAID_KEYS: Final = {
    "at": Key(_instant, required=True),
    "rx": Key(_instant),
    "device": Key(text(129, "pile-2")),
    "port": Key(_PORT),
    "ports": Key(_as_is),
    "send": Key(_as_is),
    "event": Key(text(80, "smoke raised")),
    "id": Key(text(64, "a")),
    "seq": Key(number(0, 2**53, "7")),
    "clock_ok": Key(flag),
    "retained": Key(flag),
}
_WALL_KEYS: Final = {
    "wall": Key(_instant, required=True),
    "listening": Key(flag),
    "restart": Key(flag),
    "reload": Key(text(64, "edited")),
}
_SERIES_KEYS: Final = {
    "from": Key(_instant, required=True),
    "every": Key(_instant, required=True),
    "device": Key(text(129, "pile-2")),
    "port": Key(_PORT),
}
STEP_KEYS: Final = {**_SAID_KEYS, **_WALL_KEYS, "series": Key(_as_is), **_SERIES_KEYS}
"""All of them, for the page that explains them."""


def _is_series(node: Node) -> bool:
    return isinstance(node.data, dict) and "series" in node.data


def _step(node: Node, index: int, cast: Cast, place: Place) -> _Words | Wall | None:
    if isinstance(node.data, dict) and "wall" in node.data:
        return _wall(mapping(node, _WALL_KEYS, place, "{wall: 30s}"), node, cast, place)
    got = mapping(node, _SAID_KEYS, place, "{at: 3s, send: {temp_c: 80}}")
    device_id = _device(node, got, cast, place)
    if "at" not in got or device_id is None:
        return None
    kind, part = cast.devices[device_id].kind, str(got.get("port", ""))
    if "port" in got and not part_fields(kind):
        place.flaw(node.data["port"].spot, f"a device of kind {kind} has no ports")
        return None
    event, parts = None, _parts(got, kind, part, place)
    if "event" in got:
        event = _event(node.data["event"], kind, part, got.get("id", f"e{index}"), place)
    if ("event" in got) == ("send" in got or "ports" in got):
        place.flaw(node.spot, "a step has 'send' (or 'ports'), 'event' or 'wall'")
        return None
    if "event" in got and event is None:
        return None
    ts = cast.start + got["at"]
    rx = cast.start + got["rx"] if "rx" in got else ts + DELAY_MS
    flags = (bool(got.get("clock_ok", True)), bool(got.get("retained", False)))
    return _Words(device_id, ts, rx, got.get("seq"), tuple(parts), event, *flags)


def _wall(got: Mapping[str, Any], node: Node, cast: Cast, place: Place) -> Wall | None:
    if "wall" not in got:
        return None
    book = None
    if "reload" in got:
        book = cast.books.get(got["reload"])
        if book is None:
            hint = did_you_mean(got["reload"], cast.books)
            place.flaw(node.data["reload"].spot, f"no 'other_rules' are called '{got['reload']}'{hint}")
    return Wall(cast.start + got["wall"], got.get("listening"), bool(got.get("restart", False)), book)


def _device(node: Node, got: Mapping[str, Any], cast: Cast, place: Place) -> str | None:
    """The id of the device that a step is about."""
    first = next(iter(cast.devices))
    name = got.get("device")
    if name is None:
        return first
    device_id = name if "." in name else f"{first.partition('.')[0]}.{name}"
    if device_id in cast.devices:
        return str(device_id)
    place.flaw(node.data["device"].spot, f"'{name}' is none of the case's 'devices'")
    return None


def _parts(got: Mapping[str, Any], kind: str, part: str, place: Place) -> Iterator[tuple[str, Mapping[str, Value]]]:
    if "send" in got:
        yield part, _fields(got["send"], part_fields(kind) if part else device_fields(kind), place.at("send"))
    if "ports" in got:
        ports = got["ports"]
        if not isinstance(ports.data, dict):
            place.at("ports").expected(ports, "a mapping", "{1: {temp_c: 80}}")
            return
        for name, fields in ports.data.items():
            if not name.isdecimal() or not 1 <= int(name) <= MOST_PORTS or not part_fields(kind):
                place.at("ports").flaw(ports.keys[name], f"'{name}' is no port of a device of kind {kind}")
            else:
                yield name, _fields(fields, part_fields(kind), place.at(f"ports.{name}"))


def _fields(node: Node, specs: Mapping[str, FieldSpec], place: Place) -> dict[str, Value]:
    if not isinstance(node.data, dict):
        place.expected(node, "fields with their values", "{temp_c: 80}")
        return {}
    found = {}
    for name, value in node.data.items():
        if name not in specs:
            place.flaw(node.keys[name], f"unknown field '{name}'{did_you_mean(name, specs)}")
            continue
        try:
            found[name] = value_of(value.data, specs[name])
        except ValueError as error:
            place.flaw(value.spot, str(error))
    return found


def _event(node: Node, kind: str, part: str, event_id: str, place: Place) -> _Told | None:
    """An event by its fault, its code, or table and code: `smoke raised`, `alarm-4 raised`, `dny/alarm-4 raised`."""
    word, _, state = str(node.data).partition(" ")
    found = _code(word, kind)
    if state not in ("raised", "cleared"):
        place.at("event").flaw(node.spot, f"'{node.data}' is no event, like 'smoke raised' or 'alarm-4 cleared'")
    elif found is None:
        known = [fault.name for fault in FAULTS.values() if fault.kind == kind]
        place.at("event").flaw(node.spot, f"kind {kind} has no code or fault '{word}'{did_you_mean(word, known)}")
    else:
        return _Told(part, event_id, *found, state == "raised")
    return None


def _code(word: str, kind: str) -> tuple[str, str, str | None] | None:
    """Table, code and fault. A fault that no table has a code for yet is told by its name."""
    table, _, code = word.rpartition("/")
    own = TABLE_OF[kind]
    if table or word in TABLES[own].codes:
        table = table or own
        return (table, code, meaning(table, code, kind)) if table in TABLES else None
    if word not in FAULTS or FAULTS[word].kind != kind:
        return None
    for name in (own, *TABLES):
        for code, fault in TABLES[name].codes.items():
            if fault == word:
                return name, code, word
    return own, word, word


# --- short-hand ------------------------------------------------------------------------------------------------------


def _series(node: Node, cast: Cast, place: Place) -> Iterator[_Words]:
    """The messages of a series, in order."""
    outer = mapping(node, {"series": Key(_as_is)}, place, "{series: {from: 0s, every: 1s, temp_c: 70 80*3}}")
    inner = outer.get("series", node)
    here = place.at("series")
    if not isinstance(inner.data, dict):
        here.expected(inner, "a mapping", "{from: 0s, every: 1s, temp_c: 70 80*3}")
        return
    settings = {key: value for key, value in inner.data.items() if key in _SERIES_KEYS}
    got = mapping(Node(settings, inner.spot, keys=inner.keys), _SERIES_KEYS, here, "{from: 0s, every: 1s}")
    device_id = _device(inner, got, cast, here)
    if "from" not in got or "every" not in got or device_id is None:
        return
    if got["every"] == 0:
        here.flaw(inner.data["every"].spot, "'every' must be longer than 0s")
        return
    kind, part = cast.devices[device_id].kind, str(got.get("port", ""))
    specs = part_fields(kind) if part else device_fields(kind)
    columns: dict[str, list[Value | None]] = {}
    for name, words in inner.data.items():
        if name in _SERIES_KEYS:
            continue
        if name not in specs:
            here.flaw(inner.keys[name], f"unknown field '{name}'{did_you_mean(name, specs)}")
            continue
        try:
            columns[name] = values_of(words.written.strip("'\""), specs[name], got["every"])
        except ValueError as error:
            here.flaw(words.spot, str(error))
    for index in range(max(map(len, columns.values()), default=0)):
        fields: dict[str, Value] = {}
        for name, values in columns.items():
            value = values[index] if index < len(values) else None
            if value is not None:
                fields[name] = value
        if fields:
            ts = cast.start + got["from"] + index * got["every"]
            yield _Words(device_id, ts, ts + DELAY_MS, None, ((part, fields),), None, clock_ok=True, retained=False)
