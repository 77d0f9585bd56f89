"""Ordering credit in a real browser, from the billing page to the code of the order."""

import pytest
from playwright.sync_api import Browser

from tests.support.browser import PHONE, visitor
from tests.support.pictures import SLUG
from tests.support.site import Site

pytestmark = pytest.mark.browser


def test_an_owner_orders_credit_and_copies_the_code(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/billing/")
        page.get_by_role("link", name="Add credit").click()
        dialog = page.locator("#dialog")
        dialog.get_by_label("$50").check()
        dialog.get_by_role("button", name="Order").click()
        page.wait_for_url("**/billing/orders/*/")
        code = page.locator("[data-code]").inner_text()
        assert page.url.endswith(f"/{code}/")
        assert "$50.00 USD" in page.locator("main").inner_text()
        page.get_by_role("button", name="Copy the reference code").click()
        page.get_by_text("Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == code
        page.get_by_role("link", name="Back to billing").click()
        page.get_by_role("link", name=code).click()
        page.get_by_role("button", name="Cancel the order").click()
        page.get_by_text("Do not pay it").wait_for()
        assert not person.errors
