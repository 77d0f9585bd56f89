"""The overview in a real browser: charts, days of one's own, and sorted tables."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.calls import call
from tests.support.browser import DESKTOP, PHONE, Visitor, visitor
from tests.support.pictures import SLUG
from tests.support.site import Site

pytestmark = pytest.mark.browser


def overview(person: Visitor, site: Site, query: str = "") -> Page:
    """Open the overview. Until the worker has stored the first request, the page waits for it."""
    person.sign_in(site.quickstart.admin_email, site.quickstart.admin_password)
    page = person.go(f"/o/{SLUG}/{query}")
    page.locator("#charts").wait_for()
    return person.go(f"/o/{SLUG}/{query}")


def click_on_the_last_point(page: Page, canvas: str) -> None:
    point = page.locator(canvas).evaluate(
        "canvas => { const last = Chart.getChart(canvas).getDatasetMeta(0).data.at(-1);"
        " return { x: last.x, y: Math.max(last.y, 12) + 2 }; }"
    )
    page.locator(canvas).click(position=point)


def test_a_point_of_a_chart_opens_the_log_of_its_time(site: Site, browser: Browser) -> None:
    call(site.url, site.quickstart.api_key)
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = overview(person, site, "?range=7d")
        expect(page.locator("canvas[data-course]")).to_have_count(3)
        click_on_the_last_point(page, "[data-course=requests]")
        page.wait_for_url(lambda url: "/logs/?since=" in url)
        expect(page.locator("#span")).to_be_visible()
        expect(page.locator("#live")).to_have_count(0)
        # Another filter keeps the time; its link takes it away.
        page.get_by_label("Status").select_option("ok")
        page.wait_for_url("**status=ok**")
        assert "since=" in page.url
        page.get_by_role("link", name="Remove this time").click()
        page.wait_for_url(lambda url: "since=" not in url)
        assert person.errors == []


def test_days_are_chosen_by_keyboard_and_tables_are_sorted(site: Site, browser: Browser) -> None:
    call(site.url, site.quickstart.api_key)
    with visitor(browser, site.url, size=PHONE) as person:
        page = overview(person, site)
        page.locator("#days summary").press("Enter")
        page.get_by_label("To", exact=True).fill("2100-01-01")
        page.get_by_label("To", exact=True).press("Enter")
        page.wait_for_url("**range=custom**")
        expect(page.locator("#days")).to_contain_text("The last day is in the future.")
        page.locator("#groups").get_by_role("link", name="Requests", exact=True).click()
        page.wait_for_url("**sort=-requests**")
        expect(page.locator("#groups th[aria-sort=descending]")).to_have_text("Requests")
        page.get_by_text("Show as a table").press("Enter")
        page.locator("#times").get_by_role("link", name="Requests", exact=True).click()
        page.wait_for_url("**time_sort=-requests**")
        expect(page.locator("#times th[aria-sort=descending]")).to_have_text("Requests")
        assert person.axe() == []
        assert person.errors == []
