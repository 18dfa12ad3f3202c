"""What happens to a whole site has incidents and tickets, and is no device."""

from __future__ import annotations

import httpx
import pytest

from tests.api import seed

WHOLE = "fenghe.*"


@pytest.mark.parametrize(("lang", "name"), [("zh", "整个小区"), ("en", "whole site")])
def test_tickets_of_a_whole_site_are_shown(home: seed.House, web: httpx.Client, lang: str, name: str) -> None:
    ticket = home.raise_fault(WHOLE, group="power-cut")
    for path in ("/tickets", f"/tickets/{ticket}"):
        page = web.get(path, params={"lang": lang})
        assert page.status_code == 200
        assert name in page.text
        assert f"/devices/{WHOLE}" not in page.text
        assert "/?site=fenghe" in page.text
    assert web.get("/api/v1/tickets").json()["items"][0]["device_name"][lang] == name
    assert web.get("/api/v1/incidents").json()["items"][0]["device"] == WHOLE


def test_it_counts_for_the_site_and_is_no_device(home: seed.House, web: httpx.Client) -> None:
    before = web.get("/api/v1/sites").json()["items"][1]
    home.raise_fault(WHOLE, group="power-cut")
    after = web.get("/api/v1/sites").json()["items"][1]
    assert after == before | {"open_incidents": {"P0": 1}}
    assert WHOLE not in [one["id"] for one in web.get("/api/v1/devices").json()["items"]]
    assert web.get("/", params={"site": "fenghe"}).status_code == 200
    for path in (f"/devices/{WHOLE}", f"/api/v1/devices/{WHOLE}", f"/api/v1/devices/{WHOLE}/series?field=x"):
        assert web.get(path).status_code == 404
