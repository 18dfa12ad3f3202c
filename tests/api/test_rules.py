"""Rules in force, and what keeps one of them from being judged: seen in the API, `/readyz` and `/metrics`."""

from __future__ import annotations

import httpx

from tests.api.seed import House


def test_every_rule_in_force_is_listed(home: House, web: httpx.Client) -> None:
    answer = web.get("/api/v1/rules").json()
    book = home.rules.book
    assert [one["id"] for one in answer["items"]] == [rule.id for rule in book.rules]
    assert (answer["digest"], answer["refused"]) == (book.digest, "")
    assert {one["trouble"] for one in answer["items"]} == {""}


def test_a_rule_that_cannot_be_judged_is_named_everywhere(home: House, web: httpx.Client) -> None:
    broken = home.rules.book.rules[0].id
    home.rules = home.rules._replace(troubles={broken: "OverflowError: too large (fenghe.lift-01)"})
    items = web.get("/api/v1/rules").json()["items"]
    assert [one["trouble"] for one in items if one["trouble"]] == ["OverflowError: too large (fenghe.lift-01)"]
    assert any(broken in reason for reason in web.get("/readyz").json()["reasons"])
    assert "tizhuang_rules_in_trouble 1.0" in web.get("/metrics").text


def test_rule_files_that_were_refused_are_told(home: House, web: httpx.Client) -> None:
    home.rules = home.rules._replace(refused="charger.yaml:3:9: unknown key 'wen'")
    assert web.get("/api/v1/rules").json()["refused"] == "charger.yaml:3:9: unknown key 'wen'"
    assert any("charger.yaml:3:9" in reason for reason in web.get("/readyz").json()["reasons"])
    assert "tizhuang_rule_files_refused 1.0" in web.get("/metrics").text
