"""HTTP in front of a real InfluxDB that can answer in its place: too busy, broken, or lying about what it did."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Answer(NamedTuple):
    """What writers are told instead of the server's own answer."""

    status: int
    retry_after_s: int | None = None
    after_writing: bool = False
    """The server gets the write all the same, and does it: only its answer is lost."""


class Gateway:
    """`answer` None: everything passes. Reads always pass."""

    def __init__(self, target_port: int) -> None:
        self.answer: Answer | None = None
        self.refused: list[float] = []
        """When a write was refused, on the monotonic clock."""
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._pass()

            def do_POST(self) -> None:
                answer = gateway.answer
                if answer is None or "/write" not in self.path:
                    self._pass()
                    return
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if answer.after_writing:
                    self._ask(body)
                gateway.refused.append(time.monotonic())
                extra = {} if answer.retry_after_s is None else {"Retry-After": str(answer.retry_after_s)}
                self._tell(answer.status, extra, b'{"error": "not now"}')

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._tell(*self._ask(body))

            def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                server = http.client.HTTPConnection("127.0.0.1", target_port, timeout=30)
                try:
                    server.request(self.command, self.path, body, dict(self.headers))
                    answer = server.getresponse()
                    kept = {k: v for k, v in answer.getheaders() if k.startswith(("X-Influx", "Content-Type"))}
                    return answer.status, kept, answer.read()
                finally:
                    server.close()

            def _tell(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != http.HTTPStatus.NO_CONTENT:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(b"" if status == http.HTTPStatus.NO_CONTENT else body)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def gateway(target_port: int) -> Iterator[Gateway]:
    """A gateway in front of a loopback port for the time of the `with` block."""
    made = Gateway(target_port)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.1,), name="gateway", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join(5)
