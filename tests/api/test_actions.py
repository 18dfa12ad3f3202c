"""Ticket actions by JSON and by form: what moves, what is refused, and that a refusal changes nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api import seed


def act(web: httpx.Client, ticket: int, action: str, **said: Any) -> httpx.Response:
    return web.post(f"/api/v1/tickets/{ticket}/actions/{action}", json={"actor": "王师傅"} | said)


def test_the_whole_loop(home: seed.House, web: httpx.Client) -> None:
    ticket = home.raise_fault()
    for action in ("accept", "arrive", "done", "verify"):
        assert act(web, ticket, action).status_code == 200
    answer = act(web, ticket, "close", clear=True, note="换了门机皮带")
    assert (answer.json()["state"], answer.json()["outcome"], answer.json()["actions"]) == ("closed", "fixed", [])
    last = answer.json()["history"][-1]
    assert (last["actor"], last["note"], last["facts"]) == ("王师傅", "换了门机皮带", {"clear": True})


def test_illegal_moves_change_nothing(home: seed.House, web: httpx.Client) -> None:
    ticket = home.raise_fault()
    before = web.get(f"/api/v1/tickets/{ticket}").json()
    for action in ("close", "recover", "explode", "report"):
        answer = act(web, ticket, action, clear=True, note="x")
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "illegal_move"
    assert web.get(f"/api/v1/tickets/{ticket}").json() == before


@pytest.mark.parametrize(
    ("action", "said", "field"),
    [
        ("false_alarm", {}, "note"),
        ("false_alarm", {"note": "  "}, "note"),
        ("false_alarm", {"note": "no"}, "clear"),
        ("accept", {"actor": "   "}, "body.actor"),
        ("accept", {"actor": "x" * 101}, "body.actor"),
        ("accept", {"note": "x" * 2_001}, "body.note"),
        ("accept", {"when": "now"}, "body.when"),
    ],
)
def test_what_is_missing_is_named(
    home: seed.House, web: httpx.Client, action: str, said: dict[str, Any], field: str
) -> None:
    ticket = home.raise_fault()
    answer = act(web, ticket, action, **said)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field
    assert home.services.tickets.get(ticket).state == "dispatched"


def test_bodies_that_are_not_json(home: seed.House, web: httpx.Client) -> None:
    ticket = home.raise_fault()
    path = f"/api/v1/tickets/{ticket}/actions/accept"
    broken = web.post(path, content="{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (422, "invalid")
    form = web.post(path, data={"actor": "x"})
    assert form.status_code == 422
    assert act(web, 99, "accept").status_code == 404
    assert web.get(path).json()["error"]["code"] == "method_not_allowed"


def form(web: httpx.Client, ticket: int, action: str, **fields: str) -> httpx.Response:
    return web.post(f"/tickets/{ticket}/actions/{action}", data=fields, headers={"accept": "text/html"})


def test_form_moves_on_and_goes_back_to_the_ticket(home: seed.House, web: httpx.Client) -> None:
    ticket = home.raise_fault()
    answer = form(web, ticket, "accept", actor="王师傅", note="马上到")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/tickets/{ticket}")
    page = web.get(f"/tickets/{ticket}").text
    assert "马上到" in page
    assert f"/tickets/{ticket}/actions/arrive" in page
    assert f"/tickets/{ticket}/actions/accept" not in page


@pytest.mark.parametrize(
    ("lang", "words"),
    [("zh", "请先确认“乘客已全部救出、电梯已恢复正常”"), ("en", "&#39;Passengers out, lift clear&#39; first")],
)
def test_form_asks_for_the_statement_and_keeps_what_was_typed(
    home: seed.House, web: httpx.Client, lang: str, words: str
) -> None:
    ticket = home.raise_fault()
    home.walk(ticket, "accept", "arrive", "done", "verify")
    web.cookies.set("lang", lang)
    answer = form(web, ticket, "close", actor="王师傅", note="typed <b>text</b>")
    assert answer.status_code == 422
    assert words in answer.text
    assert "typed &lt;b&gt;text&lt;/b&gt;</textarea>" in answer.text
    assert 'value="王师傅"' in answer.text
    assert home.services.tickets.get(ticket).state == "verified"
    assert form(web, ticket, "close", actor="王师傅", clear="true").status_code == 303
    assert home.services.tickets.get(ticket).outcome == "fixed"


def test_form_in_plain_words_when_somebody_was_faster(home: seed.House, web: httpx.Client) -> None:
    ticket = home.raise_fault()
    home.walk(ticket, "accept")
    answer = form(web, ticket, "accept", actor="李师傅")
    assert answer.status_code == 409
    assert "工单现在是“已接单”，不能“接单”" in answer.text
    assert form(web, ticket, "explode", actor="x").status_code == 409
    assert "请填写操作人" in form(web, ticket, "arrive", actor=" ").text
    assert form(web, 99, "accept", actor="x").status_code == 404
