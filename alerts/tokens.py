"""Text of a condition, cut into words, each with its column."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

from core.errors import ExpressionError


class Token(NamedTuple):
    """A word: `number` (with its unit, if any), `text` (without its quotes), `name`, `sign` or `end`."""

    type: str
    text: str
    column: int
    unit: str = ""


_TOKENS = re.compile(
    r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>%|°?[A-Za-z_][A-Za-z0-9_]*)?"
    r"|(?P<text>\"[^\"\\]*\"|'[^'\\]*')"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?)|(?P<sign>==|!=|<=|>=|[<>()+\-*/,]))"
)


def tokens(text: str) -> list[Token]:
    """All words, and an `end`. Raises ExpressionError where a character means nothing."""
    found, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKENS.match(text, position)
        if match is None:
            column = position + len(text[position:]) - len(text[position:].lstrip()) + 1
            raise ExpressionError(f"'{_shown(text[column - 1])}' means nothing here", column)
        type_name = "number" if match["number"] else str(match.lastgroup)
        word = match[type_name][1:-1] if type_name == "text" else match[type_name]
        found.append(Token(type_name, word, match.start(type_name) + 1, match["unit"] or ""))
        position = match.end()
    return [*found, Token("end", "", len(text) + 1)]


def hint(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, as the end of a message; "" when none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _shown(character: str) -> str:
    return character if character.isprintable() else f"\\u{ord(character):04x}"
