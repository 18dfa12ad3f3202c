"""What a load of lifts says: its plan, and the MQTT packets made from it. `tests.load` sends them."""

from __future__ import annotations

import json
import random
import struct
import time
from array import array
from collections.abc import Iterator, Mapping
from string import ascii_letters
from typing import Final, NamedTuple

from core.payload import encode
from simulators import lift
from tests.ledger import Ledger

PUBLISH_QOS1: Final = 0x32
MIDS: Final = [struct.pack(">H", number) for number in range(65_536)]

BRIEF: Final = {"moving": True, "door": "closed", "door_zone": False, "occupied": True, "floor": 3, "speed_mps": 0.5}
IMPOSSIBLE: Final = {"floor": 999}
TRAPPED: Final = {"moving": False, "door": "closed", "door_zone": False, "occupied": True, "floor": 3}


class Plan(NamedTuple):
    """What to send."""

    devices: int = 100
    rate: float | None = None
    """Messages a second; None: as fast as the broker takes them."""
    seconds: float | None = None
    messages: int | None = None
    site: str = "load"
    connections: int = 2
    window: int = 1_000
    """Messages without a PUBACK on one connection."""
    brief: bool = False
    """Six fields instead of the whole snapshot of a simulated lift."""
    faults: int = 0
    """Alarm buttons pressed (code 90), each at a device of its own: so many tickets must come out."""
    fault_every: int = 50
    """Messages between two of them."""
    trapped: int = 0
    """The first devices always say that somebody stands between two floors: one more ticket each, after 20 s."""
    noise: int = 0
    """Random letters in a field outside the contract, so that a spool cannot compress a message to nothing."""
    bad_every: int = 0
    """Every so manieth snapshot has an impossible value and belongs into quarantine."""
    seed: int = 1
    grace_s: float = 30.0
    """How long to wait for the last PUBACKs."""


class Maker:
    """Makes packets. All packets of a run have the same length, so their first bytes are made once."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self._ledger = ledger
        self._plan = plan
        self._newest = array("q", bytes(8 * plan.devices))
        self._seq = array("I", [1_000_000]) * plan.devices  # seven digits, whatever comes
        bodies = [_tail(BRIEF)] if plan.brief else list(_snapshots(plan.seed, plan.noise))
        width = max(map(len, [*bodies, _tail(TRAPPED)]))
        self._bodies = [_padded(body, width) for body in bodies]
        self._trapped = _padded(_tail(TRAPPED), width)
        self._impossible = _padded(_tail(IMPOSSIBLE), width)
        topics = [ledger.topic(number, "telemetry").encode() for number in range(plan.devices)]
        stamp = len(b'{"ts":') + 13 + len(b',"seq":') + 7
        self._head = _fixed_header(2 + len(topics[0]) + 2 + stamp + width) + struct.pack(">H", len(topics[0]))
        self._topics = topics
        self._faulty = random.Random(plan.seed).sample(range(plan.trapped, plan.devices), plan.faults)

    def next_fault(self, link: int) -> int | None:
        """A device of this connection whose alarm button is due, or None."""
        due = len(self._ledger) // self._plan.fault_every
        if self._faulty and self._plan.faults - len(self._faulty) < due:
            device = self._faulty[-1]
            if device % self._plan.connections == link:
                return self._faulty.pop()
        return None

    def snapshot(self, device: int, mid: int, now: int) -> tuple[int, bytes]:
        """(message number, packet)."""
        self._newest[device] = ts = max(self._newest[device] + 1, now)
        self._seq[device] = seq = self._seq[device] + 1
        if device < self._plan.trapped:
            body = self._trapped
        elif self._plan.bad_every and len(self._ledger) % self._plan.bad_every == 0:
            body = self._impossible
        else:
            body = self._bodies[(device * 7 + seq) % len(self._bodies)]
        packet = b'%b%b%b{"ts":%d,"seq":%d%b' % (self._head, self._topics[device], MIDS[mid], ts, seq, body)
        return self._ledger.sent(device, ts, seq, fault=False), packet

    def fault(self, device: int, mid: int, now: int) -> tuple[int, bytes]:
        """(message number, packet) of an alarm button."""
        self._newest[device] = ts = max(self._newest[device] + 1, now)
        self._seq[device] = seq = self._seq[device] + 1
        event = {"id": f"e-{seq}", "ts": ts, "seq": seq, "code": "90", "table": "gbt24476", "state": "raised"}
        topic, body = self._ledger.topic(device, "event").encode(), json.dumps(event).encode()
        head = _fixed_header(2 + len(topic) + 2 + len(body)) + struct.pack(">H", len(topic))
        return self._ledger.sent(device, ts, seq, fault=True), head + topic + MIDS[mid] + body


def _fixed_header(length: int) -> bytes:
    """First byte of a PUBLISH with QoS 1, and the remaining length, seven bits a byte."""
    made = bytearray([PUBLISH_QOS1])
    while length > 127:
        made.append(length % 128 | 128)
        length //= 128
    made.append(length)
    return bytes(made)


def _tail(fields: Mapping[str, object]) -> bytes:
    """The fields as they follow `ts` and `seq` in a payload."""
    return b"," + json.dumps(fields, separators=(",", ":")).encode()[1:]


def _padded(tail: bytes, width: int) -> bytes:
    """The same JSON with white space before its end."""
    return tail[:-1].ljust(width - 1) + b"}"


def _snapshots(seed: int, noise: int) -> Iterator[bytes]:
    """What one busy simulated lift says during some minutes; nothing in it is a fault."""
    rng = random.Random(seed)
    state = lift.start(lift.Lift(), now_ms() / 1000, rng)
    for _ in range(64):
        state = lift.step(state, 7.0, rng)
        extra = _tail({"log": "".join(rng.choices(ascii_letters, k=noise))})[:-1] if noise else b""
        yield extra + b"," + encode(lift.snapshot(state, 1, 1)).removeprefix(b'{"ts":1,"seq":1,')


def now_ms() -> int:
    return time.time_ns() // 1_000_000
