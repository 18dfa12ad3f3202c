"""A TCP proxy for tests: stands between a client and a server and breaks what lies between them on demand."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal

MOST_WAITING: Final = 1_000_000
"""Bytes that wait for their time in one direction; then nothing more is read, and the sender feels it."""
TRICKLE_TICK_S: Final = 0.01

End = Literal["client", "server"]
_WAYS: Final[tuple[tuple[End, End], ...]] = (("client", "server"), ("server", "client"))


class Proxy:
    """Forwards bytes both ways between clients of `port` and a server on loopback.

    `cut` ends all connections at once, as a broken cable does; `half_close` tells only one end; `closed` refuses new
    ones; `stalled` keeps connections open and forwards nothing; `delay_s` holds every byte back for so long;
    `trickle` lets so many bytes through per 10 ms and direction.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.closed = False
        self.stalled = threading.Event()
        self.delay_s = 0.0
        self.trickle: int | None = None
        self.accepted = 0
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[_Pair] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._pairs)

    def cut(self) -> None:
        """Ends all connections that exist now, without a farewell."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.close()

    def half_close(self, told: End) -> None:
        """Tells one end of each connection that it is over. The other end is not told, and speaks into the void."""
        with self._lock:
            for pair in self._pairs:
                pair.half_close(told)

    def close(self) -> None:
        self._stop.set()
        self.stalled.clear()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.closed:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self._target_port), timeout=2)
            except OSError:
                client.close()
                continue
            pair = _Pair(client, server)
            with self._lock:
                self._pairs.append(pair)
            self.accepted += 1
            thread = threading.Thread(target=self._forward, args=(pair,), name="proxied", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _forward(self, pair: _Pair) -> None:
        with suppress(OSError, ValueError, KeyError):
            while not self._stop.is_set() and pair.open:
                if self.stalled.is_set():
                    self._stop.wait(0.02)
                    continue
                pair.read(0.1 if pair.idle else 0.002, self.delay_s)
                pair.write(self.trickle)
        pair.close()
        with self._lock:
            self._pairs = [one for one in self._pairs if one is not pair]


class _Pair:
    """One proxied connection. Its own thread reads and writes; others may close it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._ends: dict[End, socket.socket] = {"client": client, "server": server}
        self._waiting: dict[End, deque[tuple[float, bytes]]] = {"client": deque(), "server": deque()}
        """(when it is due, bytes) by the end they go to."""
        self._next_tick = 0.0
        self._told: End | None = None
        self._selector = selectors.DefaultSelector()
        for end in self._ends.values():
            self._selector.register(end, selectors.EVENT_READ)

    @property
    def open(self) -> bool:
        return any(end.fileno() >= 0 for end in self._ends.values())

    @property
    def idle(self) -> bool:
        return not any(self._waiting.values())

    def half_close(self, told: End) -> None:
        self._told = told
        with suppress(OSError):
            self._ends[told].shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for end in self._ends.values():
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._selector.close()

    def read(self, patience_s: float, delay_s: float) -> None:
        ready = {key.fileobj for key, _ in self._selector.select(patience_s)}
        for source, target in _WAYS:
            waiting = self._waiting[target]
            if self._ends[source] not in ready or sum(len(data) for _, data in waiting) > MOST_WAITING:
                continue
            data = self._ends[source].recv(65_536)
            if self._told:
                if not data:  # an end that noticed; the other still does not know
                    self._selector.unregister(self._ends[source])
                    self._ends[source].close()
                continue
            if not data:
                raise ConnectionResetError
            waiting.append((time.monotonic() + delay_s, data))

    def write(self, trickle: int | None) -> None:
        now = time.monotonic()
        if self._told or (trickle and now < self._next_tick):
            return
        self._next_tick = now + TRICKLE_TICK_S
        for target, waiting in self._waiting.items():
            while waiting and waiting[0][0] <= now:
                due, data = waiting.popleft()
                self._ends[target].sendall(data[:trickle])
                if trickle:
                    if rest := data[trickle:]:
                        waiting.appendleft((due, rest))
                    break


@contextmanager
def proxy(target_port: int) -> Iterator[Proxy]:
    """A proxy in front of a loopback port for the time of the `with` block."""
    running = Proxy(target_port)
    try:
        yield running
    finally:
        running.close()
