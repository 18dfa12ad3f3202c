"""Every error as one shape: `{"error": {"code", "message", "field"?}}`, for JSON; pages show the same in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from api import headers, html
from api.models import ErrorAnswer, Problem
from core.errors import IllegalMove, MissingField, NotFound, StoreUnavailable

RETRY_AFTER_S: Final = 5

_HTTP_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}

ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": ErrorAnswer, "description": "Nothing has this id."},
    422: {"model": ErrorAnswer, "description": "Something in the request is missing or wrong; `field` says what."},
    503: {"model": ErrorAnswer, "description": "A database does not answer; try again after `Retry-After` seconds."},
}
"""For OpenAPI: the errors that most routes share."""

_log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Hangs all handlers into the app."""

    @app.exception_handler(NotFound)
    def _not_found(request: Request, error: NotFound) -> Response:
        return _answer(request, 404, "not_found", str(error))

    @app.exception_handler(IllegalMove)
    def _illegal(request: Request, error: IllegalMove) -> Response:
        return _answer(request, 409, "illegal_move", str(error))

    @app.exception_handler(MissingField)
    def _missing(request: Request, error: MissingField) -> Response:
        return _answer(request, 422, "missing_field", error.reason, error.field)

    @app.exception_handler(StoreUnavailable)
    def _unavailable(request: Request, error: StoreUnavailable) -> Response:
        _log.warning("store unavailable", path=request.url.path, error=str(error))
        return _answer(request, 503, "store_unavailable", str(error))

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> Response:
        return _answer(request, 422, "invalid", *_told(error.errors()))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        answer = _answer(request, error.status_code, _HTTP_CODES.get(error.status_code, "http_error"), error.detail)
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> Response:
        _log.error("unexpected error", path=request.url.path, exc_info=error)
        answer = _answer(request, 500, "internal", "something went wrong here; the log says more")
        answer.headers.update(headers.SECURITY)  # this one is answered outside of the guard
        return answer


def problem(status: int, code: str, message: str, field: str | None = None) -> JSONResponse:
    """One error as JSON."""
    body = ErrorAnswer(error=Problem(code=code, message=message, field=field))
    again = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return JSONResponse(body.model_dump(exclude_none=True), status, again)


def _answer(request: Request, status: int, code: str, message: str, field: str | None = None) -> Response:
    """JSON for programs; a page for browsers that asked for a page."""
    answer: Response = problem(status, code, message, field)
    path = request.url.path
    if path.startswith(("/api/", "/static/")) or "text/html" not in request.headers.get("accept", ""):
        return answer
    page = html.page(request, "error.html", status=status, status_code=status, code=code, message=message)
    page.headers.update({name: value for name, value in answer.headers.items() if name == "retry-after"})
    return page


def _told(faults: Sequence[Any]) -> tuple[str, str]:
    """All faults as one message, and where the first one is: `query.step`, `body.actor`."""
    told = [(".".join(str(step) for step in fault["loc"]), str(fault["msg"])) for fault in faults]
    message = "; ".join(f"{where}: {what}" for where, what in told)
    return message, told[0][0]
