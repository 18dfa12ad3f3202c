"""Messages as they come on the wire, one YAML file each in `tests/cases/payload`, with what must become of them.

Payloads are text (`payload`), bytes (`hex`) or made (`make`, for huge ones). `{now}`, `{now-1000}`, `{now+300000}` in a
text stand for times around the receive time, so that a case can be decoded at any fixed time and published today.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

FOLDER: Final = Path(__file__).parent / "cases" / "payload"
RX: Final = 1_795_312_374_000
"""The receive time of cases that are not published: 2026-11-22T03:12:54Z."""

LIFT: Final = "tizhuang/v1/fenghe/elevator/lift-07/telemetry"
_TIME = re.compile(r"\{now([+-]\d+)?\}")
_KEYS: Final = {"about", "topic", "payload", "hex", "make", "retained", "expect"}


class Case(NamedTuple):
    """One message and what must become of it."""

    name: str
    about: str
    topic: str
    payload: bytes
    rx: int
    retained: bool
    rejected: bool
    expect: Mapping[str, Any]
    """`readings`, `events`, `unknown` as in core.reading; `counts` for huge ones; or `rejected`: field and reason."""


def load(rx: int = RX) -> list[Case]:
    """All cases as they look when they are received at `rx`, by name."""
    return [_case(path, rx) for path in sorted(FOLDER.glob("*.yaml"))]


def _case(path: Path, rx: int) -> Case:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(raw) <= _KEYS, f"{path.name}: unknown keys {set(raw) - _KEYS}"
    topic = raw.get("topic", LIFT)
    expect = _with_times(raw["expect"], rx)
    rejected = "rejected" in expect
    return Case(path.stem, raw["about"], topic, _payload(raw, rx), rx, raw.get("retained", False), rejected, expect)


def _payload(raw: Mapping[str, Any], rx: int) -> bytes:
    (form,) = {"payload", "hex", "make"} & set(raw)
    if form == "payload":
        return _text_with_times(raw["payload"], rx).encode()
    if form == "hex":
        return bytes.fromhex(raw["hex"])
    ((maker, size),) = raw["make"].items()
    return MAKERS[maker](size, rx)


def _text_with_times(text: str, rx: int) -> str:
    return _TIME.sub(lambda match: str(rx + int(match[1] or 0)), text)


def _with_times(expected: Any, rx: int) -> Any:
    """The same structure; a text that is nothing but a time becomes the number."""
    if isinstance(expected, dict):
        return {key: _with_times(value, rx) for key, value in expected.items()}
    if isinstance(expected, list):
        return [_with_times(value, rx) for value in expected]
    if isinstance(expected, str) and _TIME.fullmatch(expected):
        return int(_text_with_times(expected, rx))
    return expected


def _padded(size: int, rx: int) -> bytes:
    """A good snapshot of exactly so many bytes."""
    head = f'{{"ts":{rx},"floor":3,"pad":"'.encode()
    return head + b"x" * (size - len(head) - 2) + b'"}'


def _snapshots(count: int, rx: int) -> bytes:
    """A backlog, one snapshot a second."""
    return json.dumps([{"ts": rx - 1_000 * age, "floor": 1 + age % 6} for age in reversed(range(count))]).encode()


def _unknown_fields(count: int, rx: int) -> bytes:
    """One snapshot with so many different unknown fields, as short as possible."""
    letters = [chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"\\']
    names = [*letters, *(a + b for a in letters for b in letters if a + b != "ts"), *(f"{a}zz" for a in letters)]
    names += [f"{a}{b}!" for a in letters for b in letters]
    fields = ",".join(f'"{name}":1' for name in names[:count])
    return f'{{"ts":{rx},{fields}}}'.encode()


def _faulty_snapshots(count: int, rx: int) -> bytes:
    """A backlog in which every snapshot is wrong."""
    return json.dumps([{"ts": rx, "floor": "up"}] * count, separators=(",", ":")).encode()


def _brackets(depth: int, rx: int) -> bytes:
    return f'{{"ts":{rx},"x":{"[" * depth}{"]" * depth}}}'.encode()


def _nines(digits: int, rx: int) -> bytes:
    return f'{{"ts":{rx},"trips":{"9" * digits},"x":{"9" * digits}}}'.encode()


def _long_name(length: int, rx: int) -> bytes:
    return f'{{"ts":{rx},"{"n" * length}":1}}'.encode()


def _long_text(length: int, rx: int) -> bytes:
    return f'{{"ts":{rx},"x":"{"梯" * length}"}}'.encode()


MAKERS: Final[Mapping[str, Callable[[int, int], bytes]]] = {
    "padded": _padded,
    "snapshots": _snapshots,
    "unknown_fields": _unknown_fields,
    "faulty_snapshots": _faulty_snapshots,
    "brackets": _brackets,
    "nines": _nines,
    "long_name": _long_name,
    "long_text": _long_text,
}
