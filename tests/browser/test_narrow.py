"""Pages on a phone: whole amounts, every choice of a bar, tables that need no scrolling."""

import pytest
from playwright.sync_api import Browser, Page

from codexflow.lib.ids import new_id
from tests.browser.calls import call
from tests.browser.test_keys import make, rotate_with_overlap
from tests.support.browser import DESKTOP, NARROW, PHONE, visitor
from tests.support.pictures import SLUG, set_language
from tests.support.site import Site

pytestmark = pytest.mark.browser

# Turkish has the longer words. With the menu beside them, pages have least room at the first of these widths.
LAPTOPS = (1024, 1280, 1440)
FITTING = [f"/o/{SLUG}/{page}/" for page in ("billing", "audit", "keys", "members")]


def cut(page: Page, selector: str) -> list[str]:
    """Texts of the elements that show less than they hold, or lie partly outside the window."""
    found: list[str] = page.locator(selector).evaluate_all(
        "all => all.filter(each => each.checkVisibility() && (each.scrollWidth > each.clientWidth + 1"
        " || each.getBoundingClientRect().right > innerWidth)).map(each => each.textContent.trim().slice(0, 60))"
    )
    return found


def test_a_phone_shows_whole_amounts_choices_and_tables(site: Site, browser: Browser) -> None:
    call(site.url, site.quickstart.api_key)
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(site.quickstart.admin_email, site.quickstart.admin_password)
        page = person.go(f"/o/{SLUG}/keys/")
        make(page, "narrow")
        rotate_with_overlap(page, "narrow")  # whose row says until when
        page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
        set_language(person, "tr")
        try:
            page = person.go(f"/o/{SLUG}/members/invite/")
            page.fill("[name=email]", f"{new_id().hex}@a-company-of-the-longer-names.example.org")
            page.locator("main form button.btn-primary").click()
            page.wait_for_url(f"**/o/{SLUG}/members/")
            page = person.go(f"/o/{SLUG}/")
            page.locator("#charts").wait_for()
            for size in (PHONE, NARROW):
                page.set_viewport_size({"width": size["width"], "height": size["height"]})
                for path in [f"/o/{SLUG}/?range=30d", "/settings/", *FITTING]:
                    page = person.go(path)
                    assert cut(page, ".kpi-value") == [], (path, size)
                    assert cut(page, "nav.seg, nav.seg a, main nav .navlink") == [], (path, size)
                    if path in FITTING:
                        assert cut(page, ".scroller") == [], (path, size)
            page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
            assert cut(person.go("/pricing/"), "#models ~ .panel .scroller") == []
        finally:
            set_language(person, "en")


def test_a_laptop_shows_whole_tables(site: Site, browser: Browser) -> None:
    call(site.url, site.quickstart.api_key)
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(site.quickstart.admin_email, site.quickstart.admin_password)
        make(person.go(f"/o/{SLUG}/keys/"), "a key whose name says in many words what it is for")
        for language in ("en", "tr"):
            set_language(person, language)
            try:
                for path in (f"/o/{SLUG}/", f"/o/{SLUG}/logs/", *FITTING, "/pricing/"):
                    page = person.go(path)
                    if "audit" in path:  # what stands there depends on what was done before
                        page.locator("tbody td:nth-child(3)").first.evaluate(
                            "each => each.prepend('a long action '.repeat(6))"
                        )
                    for width in LAPTOPS:
                        page.set_viewport_size({"width": width, "height": 900})
                        assert cut(page, ".scroller") == [], (path, width, language)
            finally:
                set_language(person, "en")
