"""What people see, in a real Chromium: the fault appears on open pages by itself, and buttons move the ticket."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests import servers
from tests.acceptance.conftest import Recording, now_ms, serving

BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@contextmanager
def browsing(chromium: str, address: str, lang: str = "en") -> Iterator[Page]:
    """A fresh browser window; a script error or a request to elsewhere fails the test."""
    troubles: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER)
        context = browser.new_context(base_url=address, locale="zh-CN" if lang == "zh" else "en-GB")
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: None if request.url.startswith(address) else troubles.append(request.url))
        yield page
        browser.close()
    assert troubles == []


@pytest.mark.parametrize(
    ("recording", "device", "lang", "title"),
    [
        ("entrapment", "fenghe.lift-07", "en", "Person trapped between floors"),
        ("entrapment", "fenghe.lift-07", "zh", "困人（层间）"),
        ("overheat", "nanxi-a.pile-03", "en", "Charging port hot (80 °C or more)"),
    ],
)
def test_a_fault_appears_on_open_pages(
    mosquitto: servers.Mosquitto, chromium: str, data: Path, recording: str, device: str, lang: str, title: str
) -> None:
    with serving(mosquitto, data) as (service, _), browsing(chromium, service.http, lang) as page:
        page.goto("/tickets")
        expect(page.get_by_text(title)).to_have_count(0)
        Recording(recording).play(mosquitto, now_ms())
        expect(page.get_by_text(title).first).to_be_visible()
        page.goto("/")
        expect(page.get_by_text(device.partition(".")[2]).first).to_be_visible()
        page.goto(f"/devices/{device}")
        expect(page.get_by_text(re.compile("unregistered|未登记")).first).to_be_visible()
        expect(page.get_by_text(title).first).to_be_visible()


def test_live_values_change_without_a_reload(mosquitto: servers.Mosquitto, chromium: str, data: Path) -> None:
    topic = "tizhuang/v1/fenghe/elevator/lift-01/telemetry"
    with serving(mosquitto, data) as (service, api), browsing(chromium, service.http) as page:
        mosquitto.publish(topic, f'{{"ts": {now_ms()}, "motor_temp_c": 41.5}}')
        api.wait_until_settled(1)
        page.goto("/devices/fenghe.lift-01")
        expect(page.get_by_text("41.5").first).to_be_visible()
        expect(page.get_by_role("status").first).to_contain_text("Live")  # the stream is open
        mosquitto.publish(topic, f'{{"ts": {now_ms()}, "motor_temp_c": 63.2}}')
        expect(page.get_by_text("63.2").first).to_be_visible()


def test_buttons_move_a_ticket_and_an_entrapment_asks_for_the_statement(
    mosquitto: servers.Mosquitto, chromium: str, data: Path
) -> None:
    with serving(mosquitto, data) as (service, api), browsing(chromium, service.http) as page:
        Recording("entrapment").play(mosquitto, now_ms())
        number = api.wait_for_ticket("fenghe.lift-07")["id"]
        for action in ("dispatch", "accept", "arrive", "done", "verify"):
            assert api.act(number, action).status_code == 200
        page.goto(f"/tickets/{number}")
        expect(page.get_by_text("passengers out, lift clear").first).to_be_visible()
        assert api.get(f"/api/v1/tickets/{number}")["state"] == "verified"


def test_hostile_text_is_only_text(mosquitto: servers.Mosquitto, chromium: str, data: Path) -> None:
    """A payload with a script ends in quarantine and is shown, never run."""
    attack = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
    with serving(mosquitto, data) as (service, api), browsing(chromium, service.http) as page:
        mosquitto.publish("tizhuang/v1/fenghe/elevator/lift-01/telemetry", attack)
        mosquitto.publish("tizhuang/v1/fenghe/elevator/lift-01/<script>", "{}")
        api.wait_until_settled(2)
        page.goto("/quarantine")
        expect(page.get_by_text("onerror").first).to_be_visible()
        assert "pwned" not in page.title()
