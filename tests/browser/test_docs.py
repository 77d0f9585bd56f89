"""Documentation: the search from the keyboard, and a page copied as Markdown."""

import pytest
from playwright.sync_api import Browser

from tests.support.browser import DESKTOP, visitor
from tests.support.site import Site

pytestmark = pytest.mark.browser


def test_a_slash_leads_to_the_search_and_a_result_to_its_section(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = person.go("/docs/limits/")
        page.keyboard.press("/")
        page.keyboard.type("daily_quota_exceeded")
        page.keyboard.press("Enter")
        page.wait_for_url("**/docs/search/?q=daily_quota_exceeded")
        page.locator("main a", has_text="Limits and billing").click()
        page.wait_for_url("**/docs/errors/#limits-and-billing")
        assert page.locator("#limits-and-billing").is_visible()
        assert not person.errors


def test_a_page_is_copied_as_markdown(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = person.go("/docs/clients/curl/")
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("[data-copy-from]").click()
        page.locator("#toasts", has_text="Copied").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("# curl\n")
        assert f"{site.url}/v1" in copied
        assert not person.errors
