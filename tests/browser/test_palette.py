"""The command palette, by keyboard and on a phone."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.calls import call
from tests.support.browser import DESKTOP, PHONE, visitor
from tests.support.pictures import SLUG
from tests.support.site import Site

pytestmark = pytest.mark.browser
ACTIVE = "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))?.innerText"


def open_palette(page: Page, keys: str = "Control+k") -> None:
    """Press the keys and wait for the list: the first time on a page its script is loaded then."""
    page.keyboard.press(keys)
    expect(page.locator("#palette-list li").first).to_be_visible()


@pytest.mark.both_browsers("nightly")
def test_pages_keys_requests_and_actions_by_keyboard(site: Site, browser: Browser) -> None:
    known = site.quickstart
    request_id = call(site.url, known.api_key)
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/billing/")
        page.locator("a.navlink").first.focus()
        field, options = page.locator("#palette-input"), page.locator("#palette-list li")

        open_palette(page)
        expect(field).to_be_focused()
        assert options.count() > 5
        assert person.axe() == []
        assert page.evaluate(ACTIVE) == "Overview"
        page.keyboard.press("ArrowUp")
        assert page.evaluate(ACTIVE) == options.last.inner_text()
        page.keyboard.press("Escape")
        expect(field).to_have_count(0)
        assert page.evaluate("document.activeElement.matches('a.navlink')"), "the focus does not return"

        open_palette(page, "Meta+k")
        page.keyboard.type("audit")
        expect(options).to_have_text(["Audit log"])
        page.keyboard.press("Enter")
        page.wait_for_url("**/audit/")

        open_palette(page)
        page.keyboard.type("no such thing")
        expect(page.get_by_text("Nothing found.")).to_be_visible()
        expect(field).to_have_attribute("aria-expanded", "false")
        assert person.axe() == []
        page.keyboard.press("Enter")
        field.fill("quickstart")
        expect(options.first).to_contain_text("cfx_")
        page.keyboard.press("Enter")
        page.wait_for_url("**/keys/*-*/")

        open_palette(page)
        page.keyboard.type(request_id)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/logs/{request_id}/")

        open_palette(page)
        page.keyboard.type(request_id[:13])
        expect(options.first).to_contain_text("Requests with this id")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/logs/?id={request_id[:13]}")

        open_palette(page)
        page.keyboard.type("create key")
        page.keyboard.press("Enter")
        expect(page.locator("#dialog[open]").get_by_label("Name", exact=True)).to_be_focused()
        page.keyboard.press("Control+k")  # a dialog is open
        assert field.count() == 0
        page.keyboard.press("Escape")
        expect(page.locator("#dialog[open]")).to_have_count(0)

        theme = page.locator("html").get_attribute("data-theme")
        open_palette(page)
        page.keyboard.type("dark")
        page.keyboard.press("Enter")
        page.wait_for_function("theme => document.documentElement.dataset.theme !== theme", arg=theme)
        open_palette(page)
        page.keyboard.type("turkce")  # without accents
        page.keyboard.press("Enter")
        page.locator("html[lang=tr]").wait_for()
        person.settle()  # until its scripts have loaded, no key opens it
        open_palette(page)
        page.keyboard.type("ENGLISH")
        page.keyboard.press("Enter")
        page.locator("html[lang=en]").wait_for()
        assert person.errors == []


def test_on_a_phone_a_button_opens_it(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.page
        page.get_by_role("button", name="Go to").click()
        page.get_by_role("combobox").fill("team")
        page.get_by_role("option", name="Team").click()
        page.wait_for_url("**/members/")
        assert person.errors == []
