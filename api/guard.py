"""What every request passes first: the right host, the same origin, a bounded body; and the headers every answer has.

There is no login yet, so the browser is the way in for strangers: a foreign page could rebind its name to our address
(Host check), post a form to us (same-origin check), or frame us (headers). Programs like curl send no Origin and pass.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import headers
from api.errors import problem
from core.settings import Http

MAX_BODY_BYTES: Final = 65_536
_TOO_LARGE: Final = f"a body has at most {MAX_BODY_BYTES} bytes"

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_BODY_TYPES: Final = frozenset({"application/json", "application/x-www-form-urlencoded"})
_ANYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised here, not bound


class Guard:
    """ASGI middleware around the whole app. It never buffers, so event streams pass through it untouched."""

    def __init__(self, app: ASGIApp, http: Http) -> None:
        self._app = app
        self._hosts = frozenset(
            host.lower() for host in ("localhost", "127.0.0.1", "::1", http.host, *http.allowed_hosts)
        )
        self._listens_anywhere = http.host in _ANYWHERE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is not None:
            status, code, message = refusal
            await problem(status, code, message)(scope, receive, send)
            return
        await self._app(scope, _limited(receive), send)

    def _refusal(self, method: str, given: Headers) -> tuple[int, str, str] | None:
        """Status, code and message; None for a request that may pass."""
        host = given.get("host", "")
        if not self._known_host(host):
            return 400, "unknown_host", f"this server does not answer for '{host[:100]}'; see http.allowed_hosts"
        if method in _SAFE_METHODS:
            return None
        if not _same_origin(host, given):
            return 403, "cross_origin", "changes are accepted from our own pages only"
        length = given.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            return 413, "too_large", _TOO_LARGE
        if method != "DELETE" and given.get("content-type", "").partition(";")[0].strip().lower() not in _BODY_TYPES:
            return 415, "unsupported_media_type", "send application/json"
        return None

    def _known_host(self, host: str) -> bool:
        """Any port. An address instead of a name cannot be rebound, so a server that listens everywhere takes any."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._hosts:
            return True
        return self._listens_anywhere and _is_address(name)


def _same_origin(host: str, given: Headers) -> bool:
    """What the browser says of the page that sent this; the scheme is left out, a proxy may have changed it."""
    if given.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        return False
    origin = given.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _limited(receive: Receive) -> Receive:
    """Counts a body that does not say its length."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MAX_BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE)
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers.SECURITY)
        await send(message)

    return sent
