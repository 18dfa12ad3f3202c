"""The catalogue: both languages whole, only known keys in templates and scripts, a word for everything."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from string import Formatter

import pytest

from core import i18n
from core.faults import Severity
from core.kinds import KINDS, all_fields
from core.ticket import MOVES, State

API = Path(__file__).parents[2] / "api"
SOURCES = [*sorted((API / "templates").glob("*.html")), *sorted((API / "static").glob("*.js"))]
CALL = re.compile(r"""\b(?:t|say)\(\s*["']([a-z0-9_.]+)["'](\s*~|\s*\+)?""")


def test_no_key_twice_and_no_text_empty() -> None:
    assert [key for key, times in Counter(key for key, *_ in i18n.ENTRIES).items() if times > 1] == []
    assert [key for key, zh, en in i18n.ENTRIES if not zh.strip() or not en.strip()] == []


def test_both_languages_have_the_same_places() -> None:
    def places(text: str) -> set[str | None]:
        return {name for _, name, _, _ in Formatter().parse(text) if name is not None}

    assert [key for key, zh, en in i18n.ENTRIES if places(zh) != places(en)] == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_only_known_keys(source: Path) -> None:
    """Keys that are put together (`t("kind." ~ kind)`) must at least begin like one."""
    for key, more in CALL.findall(source.read_text(encoding="utf-8")):
        known = any(one.startswith(key) for one in i18n.WORDS) if more else key in i18n.WORDS
        assert known, f"{source.name}: {key}"


def test_scripts_get_every_word_they_say() -> None:
    from api.html import SCRIPT_WORDS  # noqa: PLC0415

    for source in (API / "static").glob("*.js"):
        for key, _ in CALL.findall(source.read_text(encoding="utf-8")):
            assert key.startswith(SCRIPT_WORDS), key


def test_everything_of_the_domain_has_a_word() -> None:
    needed = [f"severity.{severity}" for severity in Severity]
    needed += [f"ticket_state.{state}" for state in State]
    needed += [f"did.{move}" for move in (*MOVES, "report", "joined", "cleared")]
    needed += [f"action.{move.action}" for move in MOVES.values() if move.by_person]
    needed += [f"outcome.{move.outcome}" for move in MOVES.values() if move.outcome]
    needed += [f"kind.{kind}" for kind in KINDS]
    for kind in KINDS:
        needed += [f"value.{spec.name}.{one}" for spec in all_fields(kind).values() for one in spec.choices]
    assert [key for key in needed if key not in i18n.WORDS] == []


@pytest.mark.parametrize(
    ("asked", "remembered", "accepted", "chosen"),
    [
        (None, None, None, "zh"),
        ("en", "zh", "zh", "en"),
        ("fr", "en", None, "en"),
        (None, None, "en-GB,en;q=0.9,zh;q=0.8", "en"),
        (None, None, "fr,zh-TW;q=0.5,en;q=0.4", "zh"),
        (None, None, "en;q=0,zh", "zh"),
        (None, None, "en;q=x,;;,=", "zh"),
        (None, None, "de,fr", "zh"),
    ],
)
def test_choice_of_language(asked: str | None, remembered: str | None, accepted: str | None, chosen: str) -> None:
    assert i18n.choose(asked, remembered, accepted) == chosen
