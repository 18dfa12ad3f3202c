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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn waits for open responses before it ends the lifespan, so the streams are told before."""
        self._app.state.stop_streams()
        await super().shutdown(sockets)
