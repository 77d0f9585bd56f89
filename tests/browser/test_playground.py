"""The playground in a real browser: stream, stop, cost and code, without a key."""

import json

import pytest
from playwright.sync_api import Browser, Page, Request

from tests.support.browser import DESKTOP, PHONE, Visitor, visitor
from tests.support.pictures import SLUG
from tests.support.site import Site

pytestmark = pytest.mark.browser


def opened(person: Visitor, site: Site) -> Page:
    known = site.quickstart
    person.sign_in(known.admin_email, known.admin_password)
    return person.go(f"/o/{SLUG}/playground/")


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.get_by_label("Your message").press("Enter")


def test_a_conversation_with_its_cost(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        sent: list[Request] = []
        person.page.on("request", lambda request: sent.append(request))
        page = opened(person, site)
        page.get_by_label("Stage").select_option("review")
        ask(page, "Is this right?")
        turn = page.locator(".turn-model").first
        turn.locator("[data-cost]").wait_for()
        assert int(turn.locator("[data-cost]").get_attribute("data-cost") or "0") > 0
        facts = turn.inner_text()
        for text in ("review", "first token after", "tokens in"):
            assert text in facts
        assert page.get_by_label("Your message").evaluate("element => element === document.activeElement")

        # The second question is sent with the first.
        page.get_by_label("Stage").select_option("direct")
        page.get_by_label("Model", exact=True).select_option("gpt-6.1-sol")
        ask(page, "And this?")
        page.locator(".turn-model").nth(1).locator("[data-cost]").wait_for()
        assert "gpt-6.1-sol" in page.locator(".turn-model").nth(1).inner_text()
        calls = [each for each in sent if each.url.endswith("/playground/chat")]
        assert [message["role"] for message in json.loads(calls[1].post_data or "")["messages"]] == [
            "user",
            "assistant",
            "user",
        ]
        for each in sent:
            assert "cfx_" not in str(each.all_headers()) + (each.post_data or "")

        page.get_by_label("Your message").fill("And then?")
        page.get_by_role("button", name="View code").click()
        page.get_by_role("tab", name="Python").click()
        code = page.locator("#panel-python").inner_text()
        for text in ('model="gpt-6.1-sol"', "And then?", "X-CFX-Stage"):
            assert text in code
        page.keyboard.press("Escape")
        turn.get_by_role("link", name="Request").click()
        page.locator("#drawer").get_by_text("Playground").wait_for()
        assert person.errors == []


def test_stop_ends_the_stream_and_its_output_is_charged(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=PHONE) as person:
        page = opened(person, site)
        ask(page, "[[fault:chunks n=600 gap_ms=100]] Tell me a long story")
        page.locator(".turn-model .turn-text:not(.text-muted)").wait_for()
        page.get_by_role("button", name="Stop").click()
        turn = page.locator(".turn-model").first
        turn.get_by_text("Stopped").wait_for()
        turn.locator("[data-cost]").wait_for()
        page.get_by_role("button", name="Send").wait_for()
        assert person.errors == []


def test_a_refusal_is_explained(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = opened(person, site)
        ask(page, "[[fault:400]]")
        page.locator(".turn-model [role=alert]").wait_for()
        assert page.get_by_label("Your message").input_value() == "[[fault:400]]", "what was written is lost"
        # The browser itself logs the failed response.
        assert all("400" in each for each in person.errors)


def test_a_signed_out_user_is_told_and_keeps_the_text(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=PHONE) as person:
        page = opened(person, site)
        row = page.locator("#play-send").locator("xpath=../..")
        assert len({round(button.bounding_box()["y"]) for button in row.get_by_role("button").all()}) == 1  # type: ignore[index]
        person.context.clear_cookies(name="sessionid")
        ask(page, "Is anybody there?")
        page.get_by_text("Your session has ended").wait_for()
        assert page.get_by_label("Your message").input_value() == "Is anybody there?"
