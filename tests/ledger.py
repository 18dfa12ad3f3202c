"""What a load published and what the broker acknowledged, message by message: the truth that stores are held to."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

KIND = "elevator"
_COLUMNS = {"device": "I", "ts": "q", "seq": "I", "fault": "B"}


class Point(NamedTuple):
    """One message. `fault`: an event that must lead to a ticket; else a snapshot."""

    device_id: str
    ts: int
    seq: int
    fault: bool


class Ledger:
    """All messages in the order in which they were first sent, and which of them got a PUBACK."""

    def __init__(self, site: str, devices: int) -> None:
        self.site = site
        self.names = [f"lift-{number:05}" for number in range(devices)]
        self.device, self.ts, self.seq, self.fault = (array(code) for code in _COLUMNS.values())
        self.is_acked = bytearray()
        self.acked = 0
        self._marks: list[tuple[int, int]] = []
        """(time of the PUBACK in Unix ms, message number), in the order of time."""

    def __len__(self) -> int:
        return len(self.device)

    def topic(self, device: int, channel: str) -> str:
        return f"tizhuang/v1/{self.site}/{KIND}/{self.names[device]}/{channel}"

    def sent(self, device: int, ts: int, seq: int, *, fault: bool) -> int:
        """Notes a new message; returns its number."""
        self.device.append(device)
        self.ts.append(ts)
        self.seq.append(seq)
        self.fault.append(fault)
        self.is_acked.append(0)
        return len(self.device) - 1

    def ack(self, number: int) -> None:
        self.acked += not self.is_acked[number]
        self.is_acked[number] = 1

    def mark(self, now_ms: int, number: int) -> None:
        """Message `number` was acknowledged at this time; one mark for each read from the socket is enough."""
        self._marks.append((now_ms, number))

    def last_acked_before(self, now_ms: int) -> int:
        """The highest message number that was certainly acknowledged at this time; -1: none."""
        numbers = [number for _, number in self._marks[: bisect_right(self._marks, (now_ms, 1 << 62))]]
        return max(numbers, default=-1)

    def points(self, *, acked_only: bool = False) -> Iterator[Point]:
        for device, ts, seq, fault, acked in zip(
            self.device, self.ts, self.seq, self.fault, self.is_acked, strict=True
        ):
            if acked or not acked_only:
                yield Point(f"{self.site}.{self.names[device]}", ts, seq, bool(fault))

    def save(self, path: Path) -> None:
        head = {"site": self.site, "devices": len(self.names), "messages": len(self), "marks": self._marks}
        with path.open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            for name in _COLUMNS:
                getattr(self, name).tofile(file)
            file.write(self.is_acked)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        with path.open("rb") as file:
            head = json.loads(file.readline())
            made = cls(head["site"], head["devices"])
            for name in _COLUMNS:
                getattr(made, name).fromfile(file, head["messages"])
            made.is_acked = bytearray(file.read())
        assert len(made.is_acked) == head["messages"], f"{path} was cut off"
        made.acked = sum(made.is_acked)
        made._marks = [(now_ms, number) for now_ms, number in head["marks"]]
        return made
