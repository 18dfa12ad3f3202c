"""Pages as HTML: what they say in both languages, and that hostile text is only text."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event

from core.faults import Severity
from tests.api import seed

PAGES = ["/", "/?site=fenghe", "/tickets", "/tickets?state=closed", "/quarantine", f"/devices/{seed.LIFT}",
         f"/devices/{seed.PILE}", f"/devices/{seed.STRANGER}", "/devices/fenghe.lift-02"]  # fmt: skip


def page(web: httpx.Client, path: str, lang: str = "zh") -> str:
    answer = web.get(path, headers={"accept": "text/html", "cookie": f"lang={lang}"})
    assert answer.status_code == 200, path
    return answer.text


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_no_inline_script_or_style_and_nothing_hostile(home: seed.House, web: httpx.Client, lang: str) -> None:
    ticket = home.raise_fault()
    home.walk(ticket, "accept", note=seed.HOSTILE)
    for path in (*PAGES, f"/tickets/{ticket}"):
        text = page(web, path, lang)
        assert seed.HOSTILE not in text, path
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), path


def test_hostile_text_is_shown_escaped(home: seed.House, web: httpx.Client) -> None:
    escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"
    ticket = home.raise_fault(title=(seed.HOSTILE, seed.HOSTILE), evidence={"values": {seed.HOSTILE: {"value": 1}}})
    home.walk(ticket, "accept", note=seed.HOSTILE)
    for path in ("/", "/tickets", f"/tickets/{ticket}", f"/devices/{seed.LIFT}", "/quarantine"):
        assert escaped in page(web, path), path


def test_overview(home: seed.House, web: httpx.Client) -> None:
    home.raise_fault()
    text = page(web, "/")
    for words in ("风荷苑", "1号楼1门电梯", "未登记", "充电 2 / 10", "困人（层间）", "从未上报", "消息服务器已连接"):
        assert words in text, words
    assert 'data-door="open"' in text
    assert "Fenghe Court" in page(web, "/", "en")


def test_overview_of_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        seed.house(tmp_path_factory.mktemp("empty")) as made,
        seed.served(made.services) as server,
        httpx.Client(base_url=server.address) as web,
    ):
        assert "还没有小区和设备" in page(web, "/")
        assert "没有未结工单" in page(web, "/tickets")
        assert "隔离区是空的" in page(web, "/quarantine")


def test_lift_page(calm: httpx.Client) -> None:
    text = page(calm, f"/devices/{seed.LIFT}", "en")
    for words in ("motor temperature", "41.26", "°C", "door closing fault", "unknown code", "Building 1", "online"):
        assert words in text, words
    assert 'data-floors="6"' in text


def test_pile_page_leads_with_the_port_in_trouble(home: seed.House, web: httpx.Client) -> None:
    home.raise_fault(seed.PILE, "3", group="heat", severity=Severity.P1, title=("高温", "hot"))
    text = page(web, f"/devices/{seed.PILE}", "en")
    assert "2 of 10 charging" in text
    assert re.findall(r'<option value="(\d*)/', text)[0] == "3"


def test_ticket_buttons_are_exactly_the_possible_actions(home: seed.House, web: httpx.Client) -> None:
    ticket = home.raise_fault()
    home.walk(ticket, "accept", "arrive", "done")
    text = page(web, f"/tickets/{ticket}", "en")
    assert re.findall(r'formaction="/tickets/\d+/actions/(\w+)"', text) == ["verify", "send_back", "false_alarm"]
    assert text.count('aria-current="step"') == 1
    assert "Passengers out, lift clear" in text


def test_unknown_addresses_are_a_page_for_browsers(calm: httpx.Client) -> None:
    answer = calm.get("/nothing", headers={"accept": "text/html", "accept-language": "en"})
    assert answer.status_code == 404
    assert "Not found" in answer.text


def test_language_is_asked_for_and_remembered(web: httpx.Client) -> None:
    answer = web.get("/tickets", params={"lang": "en", "state": "closed"})
    assert 'lang="en"' in answer.text
    assert 'href="/tickets?lang=zh&amp;state=closed"' in answer.text or "state=closed&amp;lang=zh" in answer.text
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert '<html lang="en">' in web.get("/").text, "the cookie is remembered"


def test_overview_asks_the_records_as_often_for_many_devices_as_for_few(home: seed.House, web: httpx.Client) -> None:
    asked: list[str] = []

    def count(*told: Any) -> None:
        if not told[2].startswith("BEGIN"):
            asked.append(told[2])

    event.listen(Engine, "before_cursor_execute", count)
    try:
        page(web, "/")
        few = len(asked)
        home.services.registry.heard([(f"big.lift-{number}", "elevator") for number in range(100)], now=home.now)
        asked.clear()
        assert "big.lift-99" in page(web, "/")
        assert len(asked) == few <= 13
    finally:
        event.remove(Engine, "before_cursor_execute", count)
