"""A TCP proxy for tests: stands between a client and a server and breaks what lies between them on demand."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Forwards bytes both ways between clients of `port` and a server on loopback.

    `cut` ends all connections at once, as a broken cable does; `closed` refuses new ones; `stalled` keeps connections
    open and forwards nothing.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.closed = False
        self.stalled = threading.Event()
        self.accepted = 0
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
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
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

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
            with self._lock:
                self._pairs.append((client, server))
            self.accepted += 1
            thread = threading.Thread(target=self._forward, args=(client, server), name="proxied", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, suppress(OSError, ValueError):
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while not self._stop.is_set() and client.fileno() >= 0:
                ready = selector.select(0.1)
                if self.stalled.is_set():
                    self._stop.wait(0.02)
                    continue
                for key, _ in ready:
                    data = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                    if not data:
                        raise ConnectionResetError
                    key.data.sendall(data)
        for end in (client, server):
            end.close()
        with self._lock:
            self._pairs = [pair for pair in self._pairs if pair != (client, server)]


@contextmanager
def proxy(target_port: int) -> Iterator[Proxy]:
    """A proxy in front of a loopback port for the time of the `with` block."""
    running = Proxy(target_port)
    try:
        yield running
    finally:
        running.close()
