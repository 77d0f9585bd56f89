"""The main tasks by keyboard alone."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import DESKTOP, visitor
from tests.support.pictures import set_language
from tests.support.site import Site

pytestmark = pytest.mark.browser


def focused(page: Page) -> str:
    """Text, label or name of the focused element."""
    name: str = page.evaluate(
        "(() => { const e = document.activeElement;"
        " return e.getAttribute('aria-label') || e.innerText.trim() || e.name || e.id || e.tagName; })()"
    )
    return name


def tab_to(page: Page, text: str, *, within: int = 40) -> None:
    """Press Tab until the element with this text has the focus."""
    for _ in range(within):
        page.keyboard.press("Tab")
        if re.search(text, focused(page)):
            return
    pytest.fail(f"{text!r} was not reached; the focus is on {focused(page)!r}")


@pytest.mark.both_browsers("nightly")
def test_from_signing_in_to_a_key_and_an_invitation(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = person.go("/")
        page.keyboard.press("Tab")
        assert focused(page) == "Skip to the content"
        page.keyboard.press("Enter")
        assert focused(page) != "Skip to the content"
        assert page.evaluate("document.activeElement.id") == "main"

        # Examples are tabs: arrow keys switch between them.
        tab_to(page, "^Python$")
        page.keyboard.press("ArrowRight")
        assert focused(page) == "curl"
        expect(page.get_by_role("tabpanel")).to_contain_text("curl ")

        person.go("/accounts/login/")
        page.locator("[name=login]").focus()
        page.keyboard.type(known.admin_email)
        page.keyboard.press("Tab")
        page.keyboard.type(known.admin_password)
        page.keyboard.press("Enter")
        page.wait_for_url("**/o/*/")
        person.settle()
        set_language(person, "en")

        # g and a letter navigate.
        page.keyboard.press("g")
        page.keyboard.press("k")
        page.wait_for_url("**/keys/")
        person.settle()
        tab_to(page, "Create a key")
        page.keyboard.press("Enter")
        page.locator("#dialog form").wait_for()
        page.locator("#dialog [name=name]").wait_for()
        page.keyboard.press("Escape")
        page.wait_for_function("!document.querySelector('#dialog').open")
        assert focused(page) == "Create a key"

        page.keyboard.press("Enter")
        page.locator("#dialog [name=name]").wait_for()
        expect(page.locator("#dialog [name=name]")).to_be_focused()
        page.keyboard.type("by hand")
        page.keyboard.press("Enter")
        page.locator("[data-secret]").wait_for()
        page.keyboard.press("Escape")  # Escape does not close the dialog that shows a secret
        assert page.locator("#dialog[open] [data-secret]").count() == 1
        page.locator("[data-unlocks]").focus()
        page.keyboard.press("Space")
        tab_to(page, "^Done$", within=5)
        page.keyboard.press("Enter")
        page.locator("td", has_text="by hand").first.wait_for()

        # "?" lists the keyboard shortcuts.
        page.keyboard.press("?")
        expect(page.locator("#dialog")).to_contain_text("This list")
        page.keyboard.press("Escape")

        # "/" focuses the log's search.
        page.keyboard.press("g")
        page.keyboard.press("l")
        page.wait_for_url("**/logs/**")
        person.settle()
        page.keyboard.press("/")
        expect(page.locator("[data-search]")).to_be_focused()

        person.go(page.url.partition("/logs/")[0].removeprefix(site.url) + "/members/")
        tab_to(page, "Invite member")
        page.keyboard.press("Enter")
        page.locator("#dialog [name=email]").wait_for()
        page.locator("#dialog [name=email]").focus()
        invited = f"kit-{browser.browser_type.name}@example.org"  # the site may be that of both browsers
        page.keyboard.type(invited)
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")  # the next role
        page.keyboard.press("Enter")
        page.get_by_text(f"{invited} has been invited.").wait_for()
        assert person.errors == []
