"""Pages: one Jinja environment that escapes everything, and what templates may call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import URL

from api.deps import language_of
from api.services import Services
from core import i18n
from core.faults import FAULTS
from core.kinds import KINDS, all_fields
from core.reading import Value

FOLDER: Final = Path(__file__).parent
COOKIE_AGE_S: Final = 365 * 86_400
SCRIPT_WORDS: Final = ("age.", "live.", "value.", "device.chart.", "pile.busy")


def environment() -> Environment:
    """Autoescape is on for every template, whatever its name; a misspelt variable is an error, not an empty place."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(static=_static(), known=i18n.WORDS)
    return made


def frame(services: Services) -> dict[str, Any]:
    """What the frame around every page shows. Read it before the page's own facts: the stream that the page opens
    goes on after `change`, so what happens in between comes twice rather than not at all."""
    return {"change": services.tickets.newest_change(), "open_tickets": services.tickets.open_count()}


def page(
    request: Request, template: str, *, status_code: int = 200, here: str | None = None, **context: Any
) -> HTMLResponse:
    """A template as an answer, in the reader's language; remembers the language that was asked for.

    `here`: the address that shows this page, where that is not the one that was asked for.
    """
    lang = language_of(request)
    url = request.url if here is None else URL(here)
    around = {
        "here": _path(url.remove_query_params("lang")),
        "switch": _path(url.include_query_params(lang="en" if lang == "zh" else "zh")),
        "change": None,
        "open_tickets": None,
        "words": {key: i18n.word(key, lang) for key in i18n.WORDS if key.startswith(SCRIPT_WORDS)},
    }
    words = Words(lang, request.app.state.services.now())
    text = request.app.state.templates.get_template(template).render(words.as_context() | around | context)
    answer = HTMLResponse(text, status_code, {"Cache-Control": "no-store", "Content-Language": lang})
    if request.query_params.get("lang") == lang:
        answer.set_cookie("lang", lang, max_age=COOKIE_AGE_S, httponly=True, samesite="lax")
    return answer


class Words:
    """What templates call to say things in one language at one moment."""

    def __init__(self, lang: i18n.Lang, now: int) -> None:
        self.lang = lang
        self.now = now

    def as_context(self) -> dict[str, Any]:
        """Names under which templates know these functions."""
        return {
            "lang": self.lang,
            "now": self.now,
            "t": self.t,
            "name": self.name,
            "age": self.age,
            "clock": self.clock,
            "iso": self.iso,
            "field_name": self.field_name,
            "fault_name": self.fault_name,
            "shown": self.shown,
        }

    def t(self, key: str, **places: object) -> str:
        """A word of the catalogue with its places filled in."""
        return i18n.word(key, self.lang).format(**places) if places else i18n.word(key, self.lang)

    def name(self, both: Any) -> str:
        """A bilingual name in this language."""
        return str(both.of(self.lang))

    def age(self, ts_ms: int) -> str:
        """How long ago, roughly: `3 min ago`."""
        seconds = max(0, self.now - ts_ms) // 1000
        for key, size, most in (("age.s", 1, 60), ("age.min", 60, 3_600), ("age.h", 3_600, 172_800)):
            if seconds < most:
                return self.t("age.now") if seconds < 2 else self.t(key, n=seconds // size)
        return self.t("age.d", n=seconds // 86_400)

    @staticmethod
    def clock(ts_ms: int) -> str:
        """`2026-11-22 09:52:54` by the server's zone; the script turns it into the reader's."""
        return datetime.fromtimestamp(ts_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")

    @staticmethod
    def iso(ts_ms: int) -> str:
        """For `<time datetime>`."""
        return datetime.fromtimestamp(ts_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

    def field_name(self, kind: str, field: str) -> str:
        """The field's name; fields outside the contract keep the name they came with."""
        spec = all_fields(kind).get(field) if kind in KINDS else None
        return field if spec is None else spec.zh if self.lang == "zh" else spec.en

    def fault_name(self, fault: str) -> str:
        """The fault's name in the catalogue."""
        known = FAULTS.get(fault)
        return fault if known is None else known.zh if self.lang == "zh" else known.en

    def shown(self, field: str, value: Value | None, digits: int = 2) -> str:
        """A value as text, without its unit. `app.js` does the same in `shown`."""
        if value is None:
            return "–"
        if isinstance(value, float):
            return _short(value, digits)
        said = str(value).lower() if isinstance(value, bool) else str(value)
        for key in (f"value.{field}.{said}", f"value.{said}"):
            if key in i18n.WORDS:
                return self.t(key)
        return str(value)


def _short(value: float, digits: int) -> str:
    """At most so many digits behind the point, and no zeros at the end."""
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text


def _path(url: URL) -> str:
    """Path and query only: the host is what the browser says it is, behind any proxy."""
    return f"{url.path}?{url.query}" if url.query else url.path


def _static() -> Mapping[str, str]:
    """Addresses of our files, with a piece of their hash, so that a new version is never hidden by a cache."""
    folder = FOLDER / "static"
    return {
        path.relative_to(folder).as_posix(): _address(path, folder)
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".css", ".js", ".svg"}
    }


def _address(path: Path, folder: Path) -> str:
    digest = hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()
    return f"/static/{path.relative_to(folder).as_posix()}?v={digest}"
