"""`/api/v1/silences`: made, found, ended; and what is wrong is said with its field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from storage.records import address, open_records
from storage.silences import Silences
from tests.api import seed

HOUR = 3_600_000
BODY: dict[str, Any] = {
    "device": seed.LIFT, "ends": seed.NOW + HOUR, "reason": "屋面施工", "actor": "王师傅",
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Iterator[seed.House]:
    with seed.house(tmp_path) as made, closing(open_records(address("", tmp_path))) as records:
        made.services = replace(made.services, silences=Silences(records))
        seed.register(made.services)
        yield made


def post(web: httpx.Client, **said: Any) -> httpx.Response:
    return web.post("/api/v1/silences", json={name: value for name, value in (BODY | said).items() if value is not ...})


def end(web: httpx.Client, silence_id: int) -> httpx.Response:
    return web.delete(f"/api/v1/silences/{silence_id}", headers={"Content-Type": "application/json"})


def ids(web: httpx.Client, **query: str | int) -> list[int]:
    return [one["id"] for one in web.get("/api/v1/silences", params=query).json()["items"]]


def test_a_silence_from_its_beginning_to_its_end(home: seed.House, web: httpx.Client) -> None:
    made = post(web)
    assert made.status_code == 201
    assert made.json() == {
        "id": 1,
        "site": "fenghe",
        "device": seed.LIFT,
        "group": None,
        "kind": "silence",
        "include_p0": False,
        "starts": seed.NOW,
        "ends": seed.NOW + HOUR,
        "reason": "屋面施工",
        "actor": "王师傅",
        "created": seed.NOW,
        "ended": None,
        "active": True,
    }
    assert web.get("/api/v1/silences/1").json() == made.json()
    home.now += 60_000
    ended = end(web, 1)
    assert (ended.status_code, ended.json()["ended"], ended.json()["active"]) == (200, home.now, False)
    home.now += 60_000
    assert end(web, 1).json() == ended.json()


def test_it_holds_the_letters_back_until_it_is_ended(home: seed.House, web: httpx.Client) -> None:
    post(web, kind="maintenance")
    ticket = home.raise_fault()
    outbox = home.services.outbox
    assert outbox.claim("test", now=home.now) == []
    assert web.get(f"/api/v1/tickets/{ticket}").json()["history"][-1]["action"] == "silenced"
    end(web, 1)
    assert [letter.kind for letter in outbox.claim("test", now=home.now)] == ["opened"]


def test_finding(web: httpx.Client) -> None:
    post(web)
    post(web, device=..., site="fenghe")
    post(web, device=seed.STRANGER)
    post(web, starts=seed.NOW + 1)
    assert ids(web) == [4, 3, 2, 1]
    assert ids(web, state="active") == [3, 2, 1]
    assert ids(web, site="elsewhere") == [3]
    assert ids(web, device=seed.LIFT) == [4, 2, 1]
    assert ids(web, device=seed.PILE) == [2]
    first = web.get("/api/v1/silences", params={"limit": 3}).json()
    assert (len(first["items"]), ids(web, before_id=first["next"])) == (3, [1])


WRONG: list[tuple[str, dict[str, Any], int, str, str | None]] = [
    ("no reason", {"reason": " "}, 422, "invalid", "body.reason"),
    ("nobody", {"actor": ""}, 422, "invalid", "body.actor"),
    ("no end", {"ends": ...}, 422, "invalid", "body.ends"),
    ("an end in the past", {"ends": seed.NOW}, 422, "missing_field", "ends"),
    ("an end before its start", {"starts": seed.NOW + 2 * HOUR}, 422, "missing_field", "ends"),
    ("for ever", {"ends": 2**53}, 422, "missing_field", "ends"),
    ("neither site nor device", {"device": ...}, 422, "missing_field", "site"),
    ("a device of another site", {"site": "elsewhere"}, 422, "missing_field", "device"),
    ("P0 of a whole site", {"device": ..., "site": "fenghe", "include_p0": True}, 422, "missing_field", "include_p0"),
    ("a device that nobody knows", {"device": "fenghe.lift-99"}, 404, "not_found", None),
    ("a site that nobody knows", {"device": ..., "site": "nowhere"}, 404, "not_found", None),
    ("another kind", {"kind": "holiday"}, 422, "invalid", "body.kind"),
    ("a field too many", {"forever": True}, 422, "invalid", "body.forever"),
]


@pytest.mark.parametrize(("said", "status", "code", "field"), [case[1:] for case in WRONG], ids=[c[0] for c in WRONG])
def test_what_is_wrong_is_said_and_nothing_is_made(
    web: httpx.Client, said: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    answer = post(web, **said)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error.get("field")) == (status, code, field)
    assert error["message"]
    assert ids(web) == []


def test_one_that_is_not_there(web: httpx.Client) -> None:
    for answer in (web.get("/api/v1/silences/7"), end(web, 7)):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
