"""uvicorn, stopped in the right order: first the open streams, which would never end by themselves."""

from __future__ import annotations

import socket
from typing import Final

import uvicorn
from fastapi import FastAPI

GRACE_S: Final = 2
"""For requests that are still running when the service stops; then they are cut off."""


class Server(uvicorn.Server):
    """Serves one app. `run(sockets=[...])`, `should_exit = True` and signals work as in uvicorn."""

    def __init__(self, app: FastAPI, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Small answers leave at once: asyncio sees to that only for sockets that it made itself, and an answer on a
        kept connection would wait 40 ms for the acknowledgement of its own header."""
        for listener in sockets or []:
            if listener.family in {socket.AF_INET, socket.AF_INET6}:
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn waits for open responses before it ends the lifespan, so the streams are told before."""
        self._app.state.stop_streams()
        await super().shutdown(sockets)
