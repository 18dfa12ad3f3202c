"""Messages on disk on their way to the series store: append-only, checksummed, synchronised, bounded.

The spool is a folder of segments. A segment is a row of records, each a head (mark, length, checksums) and a compressed
list of messages as they came, which are decoded again when they leave. A record that was torn by a power cut is found
by its checksum and skipped; everything before it survives. `position` remembers how far the first segment is drained;
should it be lost, those records are drained again, which changes nothing in the store.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from core.errors import SpoolFull

SEGMENT_BYTES: Final = 16 * 1024 * 1024

RECORDS_AT_ONCE: Final = 64
RECORD_MESSAGES: Final = 500
"""In one record at most, so that it can be drained in bites."""

_MARK: Final = b"TZsp"
_HEAD: Final = struct.Struct("<4sIIqII")
"""Mark, bytes of the body, messages in it, newest receive time, checksums of the body and of the head before it."""

_MESSAGE: Final = struct.Struct("<HIq?")
"""Bytes of topic and payload, receive time, retained."""

_NAME: Final = re.compile(r"\d{12}\.spool")
_log = structlog.get_logger()


class Spooled(NamedTuple):
    """A message as it came. `rx` is the receive time it is kept under, Unix ms."""

    topic: str
    payload: bytes
    rx: int
    retained: bool


class Draft(NamedTuple):
    """The oldest messages, and how to say that they are in the store now."""

    messages: list[Spooled]
    records: int


class _Record(NamedTuple):
    segment: Path
    start: int
    end: int
    messages: int
    newest_rx: int


class Spool:
    """One process's spool. Appending and draining may happen on different threads."""

    def __init__(self, folder: Path, limit_bytes: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Opens what an earlier process left. Raises OSError where the folder cannot be used."""
        self._folder = folder
        self.limit_bytes = limit_bytes
        self._segment_bytes = min(segment_bytes, max(limit_bytes // 4, 1))
        self._lock = threading.Lock()
        self._records: deque[_Record] = deque()
        self._sizes: dict[Path, int] = {}
        self._file: FileIO | None = None
        self._last = 0
        self._broken: set[Path] = set()
        self.damaged = 0
        """Records that could not be read: torn by a power cut, or a disk that forgets."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._recover()
        self._messages = sum(record.messages for record in self._records)
        self.carried = self._messages

    @property
    def messages(self) -> int:
        return self._messages

    @property
    def bytes(self) -> int:
        """On disk."""
        return sum(self._sizes.copy().values())

    @property
    def oldest_rx(self) -> int | None:
        """Newest receive time in the oldest record, Unix ms."""
        with self._lock:
            return self._records[0].newest_rx if self._records else None

    @property
    def newest_rx(self) -> int | None:
        """Newest receive time of all messages, Unix ms."""
        with self._lock:
            return max((record.newest_rx for record in self._records), default=None)

    def append(self, messages: Sequence[Spooled]) -> None:
        """Returns when the messages are on disk. Raises SpoolFull, and is as it was before."""
        parts = [messages[start : start + RECORD_MESSAGES] for start in range(0, len(messages), RECORD_MESSAGES)]
        records = [_encoded(part) for part in parts]
        size = sum(map(len, records))
        with self._lock:
            if self.bytes + size > self.limit_bytes:
                raise SpoolFull(f"the spool is full ({self.limit_bytes // 1_000_000} MB, spool.limit_mb)")
            path, file = self._segment()
            start = self._sizes[path]
            try:
                _write_all(file, b"".join(records))
                os.fsync(file.fileno())
            except OSError as error:
                self._give_up(path, start)
                raise SpoolFull(f"the spool cannot write to {self._folder}: {error.strerror}") from None
            self._sizes[path] = start + size
            for part, record in zip(parts, records, strict=True):
                newest_rx = max(one.rx for one in part)
                self._records.append(_Record(path, start, start + len(record), len(part), newest_rx))
                start += len(record)
            self._messages += len(messages)

    def oldest(self, at_most: int) -> Draft | None:
        """The oldest messages: whole records, at least one, else up to so many messages. None: the spool is empty."""
        with self._lock:
            records = list(islice(self._records, RECORDS_AT_ONCE))
        taken: list[Spooled] = []
        for number, record in enumerate(records):
            if taken and len(taken) + record.messages > at_most:
                return Draft(taken, number)
            taken += _read(record) or self._lost(record)
        return Draft(taken, len(records)) if records else None

    def each(self) -> Iterator[list[Spooled]]:
        """The messages of each record that is there now, oldest first; nothing leaves. Not while others drain.

        A record that cannot be read is left out, and told of when it is drained.
        """
        with self._lock:
            records = list(self._records)
        for record in records:
            try:
                yield _read(record)
            except OSError as error:
                _log.warning("a record of the spool cannot be read", segment=record.segment.name, error=str(error))

    def done(self, draft: Draft) -> None:
        """The messages of the draft are in the store: they leave the spool."""
        with self._lock:
            left = [self._records.popleft() for _ in range(draft.records)]
            self._messages -= sum(record.messages for record in left)
            first = self._records[0] if self._records else None
            if first is None:
                self._close_segment()
            self._note_position(left[-1].segment, left[-1].end)
            for path in sorted({record.segment for record in left} - {first.segment if first else None}):
                with suppress(OSError):  # it is drained: the next start removes it
                    # One with a damaged record stays for somebody to look at.
                    path.rename(path.with_suffix(".damaged")) if path in self._broken else path.unlink(missing_ok=True)
                del self._sizes[path]
            if first is None:  # a power cut must not bring back what newer messages have passed
                with suppress(OSError):
                    _sync_folder(self._folder)

    def close(self) -> None:
        with self._lock:
            self._close_segment()

    # the segment that is written to

    def _segment(self) -> tuple[Path, FileIO]:
        path = self._folder / f"{self._last:012}.spool"
        if self._file is not None and self._sizes[path] < self._segment_bytes:
            return path, self._file
        self._close_segment()
        self._last += 1
        path = self._folder / f"{self._last:012}.spool"
        try:
            self._file = path.open("xb", buffering=0)  # a write that failed must not linger in a buffer
            _sync_folder(self._folder)
        except OSError as error:
            self._close_segment()
            raise SpoolFull(f"the spool cannot write to {self._folder}: {error.strerror}") from None
        self._sizes[path] = 0
        assert self._file is not None
        return path, self._file

    def _give_up(self, path: Path, good: int) -> None:
        """After a failed write nobody knows what is on disk behind `good`: it goes, and a new segment begins."""
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), good)
        self._close_segment()
        if good == 0:
            with suppress(OSError):
                path.unlink()
            self._sizes.pop(path, None)

    def _close_segment(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    # what an earlier process left

    def _recover(self) -> None:
        paths = sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))
        segment, drained = self._position()
        # A name is never used twice: an old position must not be taken for one in a new segment.
        self._last = max([int(name.stem) for name in paths] + [int(segment.partition(".")[0] or 0)])
        for path in paths:
            found = list(_scan(path))
            self.damaged += sum(record is None for record in found)
            kept = [
                one
                for one in found
                if one is not None and (path.name > segment or (path.name == segment and one.start >= drained))
            ]
            if kept:
                self._sizes[path] = path.stat().st_size
                self._records += kept
            else:
                path.unlink()
        if self.damaged:
            _log.error("damaged records in the spool were skipped", records=self.damaged, folder=str(self._folder))

    def _position(self) -> tuple[str, int]:
        try:
            segment, offset = (self._folder / "position").read_text(encoding="ascii").split()
            return (segment, int(offset)) if _NAME.fullmatch(segment) else ("", 0)
        except (OSError, ValueError):
            return "", 0

    def _note_position(self, segment: Path, drained: int) -> None:
        draft = self._folder / "position.new"
        with suppress(OSError):  # a hint: without it some records are drained twice
            with draft.open("w", encoding="ascii") as file:
                file.write(f"{segment.name} {drained}")
                if not self._records:
                    file.flush()
                    os.fsync(file.fileno())
            draft.replace(self._folder / "position")

    def _lost(self, record: _Record) -> list[Spooled]:
        """The record was whole when it was written or found, and is not any more."""
        self.damaged += 1
        self._broken.add(record.segment)
        _log.error("a record of the spool cannot be read any more", segment=record.segment.name, at=record.start)
        return []


def _encoded(messages: Sequence[Spooled]) -> bytes:
    """A record."""
    body = zlib.compress(b"".join(map(_packed, messages)), 1)
    newest_rx = max(one.rx for one in messages)
    head = _HEAD.pack(_MARK, len(body), len(messages), newest_rx, zlib.crc32(body), 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head)) + body


def _packed(one: Spooled) -> bytes:
    topic = one.topic.encode("utf-8", "surrogateescape")
    return _MESSAGE.pack(len(topic), len(one.payload), one.rx, one.retained) + topic + one.payload


def _unpacked(body: bytes) -> Iterator[Spooled]:
    at = 0
    while at < len(body):
        topic_bytes, payload_bytes, rx, retained = _MESSAGE.unpack_from(body, at)
        at += _MESSAGE.size
        topic = body[at : at + topic_bytes].decode("utf-8", "surrogateescape")
        at += topic_bytes
        yield Spooled(topic, body[at : at + payload_bytes], rx, retained)
        at += payload_bytes


def _read(record: _Record) -> list[Spooled]:
    """The messages of a record; none where the disk gives back something else than was written. Raises OSError."""
    with record.segment.open("rb") as file:
        file.seek(record.start)
        data = file.read(record.end - record.start)
    body = data[_HEAD.size :]
    if len(data) < _HEAD.size or zlib.crc32(body) != _HEAD.unpack_from(data)[4]:
        return []
    return list(_unpacked(zlib.decompress(body)))


def _scan(path: Path) -> Iterator[_Record | None]:
    """The records of a segment, whole or None. After a torn one, the next mark is looked for."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        record = _record_at(path, data, at)
        yield record
        at = record.end if record else _next_mark(data, at + 1)


def _record_at(path: Path, data: bytes, at: int) -> _Record | None:
    if at + _HEAD.size > len(data):
        return None
    mark, length, messages, newest_rx, body_sum, head_sum = _HEAD.unpack_from(data, at)
    begin, end = at + _HEAD.size, at + _HEAD.size + length
    whole = mark == _MARK and zlib.crc32(data[at : begin - 4]) == head_sum and end <= len(data)
    if not whole or zlib.crc32(data[begin:end]) != body_sum:
        return None
    return _Record(path, at, end, messages, newest_rx)


def _next_mark(data: bytes, start: int) -> int:
    found = data.find(_MARK, start)
    return len(data) if found < 0 else found


def _write_all(file: FileIO, data: bytes) -> None:
    """A full disk takes part of a write without a word."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
