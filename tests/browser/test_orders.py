"""Orders in a real browser: by bank transfer to the code of the order, by card through the demo checkout."""

import pytest
from playwright.sync_api import Browser

from tests.support.browser import DESKTOP, PHONE, visitor
from tests.support.pictures import SLUG
from tests.support.site import Site
from tests.support.waiting import until

pytestmark = pytest.mark.browser
EVENTS = "from billing.models import PaymentEvent; print(PaymentEvent.objects.values_list('state', 'outcome'))"


def test_an_owner_orders_credit_and_copies_the_code(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/billing/")
        page.get_by_role("link", name="Add credit").click()
        dialog = page.locator("#dialog")
        # An amount that is typed is the one that is meant.
        other = dialog.get_by_label("Another amount (USD)")
        other.fill("7")
        assert dialog.get_by_label("Another amount", exact=True).is_checked()
        other.fill("")
        dialog.get_by_label("$50").check()
        dialog.get_by_label("Bank transfer").check()
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


def test_credit_is_bought_through_the_demo_checkout(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/billing/")
        page.get_by_role("link", name="Add credit").click()
        dialog = page.locator("#dialog")
        dialog.get_by_label("$10", exact=True).check()
        dialog.get_by_role("button", name="Order").click()
        page.wait_for_url("**/c/pay/cs_test_*")
        assert page.get_by_text("Demo checkout – no money moves").is_visible()
        assert page.get_by_role("heading", name="Pay 10.00 USD").is_visible()
        assert person.axe() == []
        # Back to the order, which stays open, and on again.
        page.get_by_role("button", name="Back").click()
        page.wait_for_url("**/billing/orders/*/")
        assert page.get_by_text("Demo checkout – no money moves").is_visible()
        page.get_by_role("button", name="Pay by card").click()
        page.get_by_role("button", name="Pay with a card that is declined").click()
        page.get_by_text("Your card was declined.").wait_for()
        page.get_by_role("button", name="Pay with a card that needs confirmation").click()
        page.get_by_role("button", name="Confirm").click()
        page.wait_for_url("**/billing/orders/*/?checkout=done")
        page.get_by_text("The payment has arrived").wait_for()
        assert page.locator("main").get_by_text("Paid", exact=True).is_visible()
        page.get_by_role("link", name="Back to billing").click()
        assert page.get_by_role("cell", name="$10.00").first.is_visible()
        assert not person.errors


def test_a_plan_is_bought_through_the_demo_checkout(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/billing/plan/?plan=team")
        page.get_by_role("button", name="Order").click()
        page.wait_for_url("**/c/pay/cs_test_*")
        page.get_by_role("button", name="Pay", exact=True).click()
        page.get_by_text("The payment has arrived").wait_for()
        page.get_by_role("link", name="Back to billing").click()
        assert page.get_by_role("heading", name="Plan Team").is_visible()
        assert not person.errors
    # The webhook, too: of the page that customers come back to, nothing depends.
    until(lambda: "('done', 'settled')" in site.run("django", "shell", "-c", EVENTS), within_s=30, what="the event")


def test_a_card_is_saved_and_removed(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/billing/")
        page.get_by_role("link", name="Save a card").click()
        page.locator("#dialog").get_by_role("button", name="Continue").click()
        page.wait_for_url("**/c/pay/cs_test_*")
        assert page.get_by_role("heading", name="Save a card").is_visible()
        assert person.axe() == []
        page.locator("select[name=card]").select_option("4444")
        page.get_by_role("button", name="Save", exact=True).click()
        page.wait_for_url("**/billing/?card=done")
        assert page.get_by_text("•••• 4444", exact=True).is_visible()
        page.get_by_role("link", name="Turn on").click()
        dialog = page.locator("#dialog")
        dialog.get_by_label("At most in a month").fill("50")
        dialog.get_by_role("button", name="Turn on").click()
        page.get_by_text("at most $50.00 a month").wait_for()
        assert person.axe() == []
        page.get_by_role("button", name="Turn off").click()
        page.get_by_role("button", name="Remove the card").click()
        page.get_by_text("No card is saved").wait_for()
        assert not person.errors
