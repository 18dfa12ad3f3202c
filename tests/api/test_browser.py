"""What only a browser shows: live parts that spare what somebody is typing, and pages that fit a phone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from core.faults import Severity
from tests.api import seed


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield started
        started.close()


def test_a_refresh_spares_what_is_being_typed(home: seed.House, server: seed.Served, browser: Browser) -> None:
    ticket = home.raise_fault()
    page = browser.new_page(base_url=server.address, locale="en-GB")
    page.goto(f"/tickets/{ticket}")
    page.get_by_label("Who acts").fill("Wang")
    note = page.get_by_label("Note")
    note.fill("on my way, the door is")
    note.focus()
    expect(page.locator("#live")).to_have_attribute("data-state", "on")
    home.walk(ticket, "accept")
    expect(page.get_by_role("button", name="Arrived")).to_be_visible()
    expect(note).to_be_focused()
    expect(note).to_have_value("on my way, the door is")
    page.get_by_role("button", name="Arrived").click()
    expect(page.get_by_role("button", name="Done")).to_be_visible()
    expect(page.get_by_label("Who acts")).to_have_value("Wang")
    expect(page.locator(".history")).to_contain_text("on my way, the door is")
    page.close()


def test_a_page_catches_up_after_it_was_hidden(home: seed.House, server: seed.Served, browser: Browser) -> None:
    page = browser.new_page(base_url=server.address, locale="en-GB")
    page.goto("/tickets")
    expect(page.locator("#live")).to_have_attribute("data-state", "on")
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    home.raise_fault()
    page.evaluate("Object.defineProperty(document, 'hidden', {value: false, configurable: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_text("Person trapped between floors").first).to_be_visible()
    expect(page.locator("#open-count")).to_have_text("1")
    page.close()


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_pages_fit_a_phone_and_say_no_error(home: seed.House, server: seed.Served, browser: Browser, lang: str) -> None:
    ticket = home.raise_fault()
    home.raise_fault(seed.PILE, "2", group="heat", severity=Severity.P1)
    troubles: list[str] = []
    page = browser.new_page(
        base_url=server.address,
        locale="zh-CN" if lang == "zh" else "en-GB",
        viewport={"width": 375, "height": 800},
    )
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    for path in (
        "/",
        "/tickets",
        f"/tickets/{ticket}",
        "/quarantine",
        *(f"/devices/{d}" for d in (seed.LIFT, seed.PILE)),
    ):
        page.goto(path)
        expect(page.locator("#live")).to_have_attribute("data-state", "on")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, path
    page.close()
    assert troubles == []
