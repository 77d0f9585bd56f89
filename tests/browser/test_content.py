"""Content retention in a real browser: turn it on, open a prompt and response in the drawer, turn it off."""

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.calls import call
from tests.support.browser import DESKTOP, Visitor, visitor
from tests.support.pictures import SLUG
from tests.support.site import Site

pytestmark = pytest.mark.browser
TRIES = 20


def set_retention(person: Visitor, days: str) -> None:
    page = person.go(f"/o/{SLUG}/settings/")
    page.get_by_label("Keep prompts and answers").select_option(days)
    page.locator("form", has=page.get_by_label("Keep prompts and answers")).get_by_role("button", name="Save").click()
    person.settle()


def a_request_with_content(person: Visitor, site: Site) -> str:
    """Make requests until one has content: the setting and the stored content each take a moment to arrive."""
    for _ in range(TRIES):
        request_id = call(site.url, site.quickstart.api_key)
        person.page.wait_for_timeout(2_500)
        page = person.go(f"/o/{SLUG}/logs/{request_id}/")
        if page.locator("summary", has_text="Prompt and answer").count():
            return request_id
    raise AssertionError("no content was stored")


def it_is_opened_in_the_playground(person: Visitor, request_id: str) -> None:
    """Opens over a conversation under way, which can be had back."""
    page = person.go(f"/o/{SLUG}/playground/")
    page.get_by_label("Your message").fill("Not sent yet")
    page = person.go(f"/o/{SLUG}/logs/?request={request_id}")
    page.locator("#drawer").get_by_role("link", name="Open in playground").click()
    page.wait_for_url("**/playground/")  # the id is taken out of the address
    expect(page.locator(".turn-user .turn-text")).to_have_text("Plan a URL shortener")
    page.locator(".turn-model [data-cost]").wait_for()
    assert page.get_by_label("Stage").input_value() == "plan"
    assert person.axe() == []
    page.get_by_role("button", name="Try again").click()
    page.locator(f".turn-model [data-cost]:not(:has(~ a[href$='{request_id}']))").wait_for()
    page.reload()
    expect(page.locator(".turn-user .turn-text")).to_have_text("Plan a URL shortener")
    page = person.go(f"/o/{SLUG}/playground/?request={request_id}")
    page.get_by_role("button", name="Back to my conversation").click()
    expect(page.locator(".turn-model")).not_to_contain_text(request_id)
    assert page.locator("#play-opened").count() == 0


def test_content_is_shown_only_while_retention_is_on(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        known = site.quickstart
        person.sign_in(known.admin_email, known.admin_password)
        set_retention(person, "7")
        page = person.page
        expect(page.get_by_text("Prompts and answers are being kept, for 7 days.")).to_be_visible()
        assert person.axe() == []
        request_id = a_request_with_content(person, site)

        page = person.go(f"/o/{SLUG}/logs/?request={request_id}")
        drawer = page.locator("#drawer")
        assert drawer.get_by_text("Plan a URL shortener").count() == 0
        drawer.locator("summary", has_text="Prompt and answer").click()
        expect(drawer.locator("[data-role=user]")).to_contain_text("Plan a URL shortener")
        expect(drawer.locator("[data-role=assistant]")).not_to_be_empty()
        drawer.locator("summary", has_text="Show raw").click()
        expect(drawer.get_by_role("group", name="Prompt")).to_contain_text("Plan a URL shortener")
        expect(drawer.get_by_role("group", name="Answer")).to_contain_text('"choices"')
        drawer.locator("summary", has_text="Replay with this prompt").click()
        expect(drawer.get_by_role("group", name="curl")).to_contain_text("Plan a URL shortener")
        assert person.axe() == []
        person.go(f"/o/{SLUG}/logs/{request_id}/content/")
        assert person.axe() == []
        it_is_opened_in_the_playground(person, request_id)

        set_retention(person, "0")
        assert page.get_by_text("are being kept").count() == 0
        page = person.go(f"/o/{SLUG}/logs/{request_id}/")
        assert page.locator("summary", has_text="Prompt and answer").count() == 0
        assert person.errors == []
