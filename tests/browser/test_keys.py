"""API keys in a real browser: rotation with overlap, and all actions on a phone."""

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import DESKTOP, PHONE, visitor
from tests.support.pictures import SLUG
from tests.support.site import Site

pytestmark = pytest.mark.browser


def works(site: Site, key: str) -> bool:
    response = httpx.get(f"{site.url}/v1/models", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    assert response.status_code in (200, 401)
    return "data" in response.json()


def make(page: Page, name: str) -> str:
    page.get_by_role("link", name="Create a key").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Create", exact=True).click()
    return taken(page)


def taken(page: Page) -> str:
    """Read the secret in the dialog and close the dialog as a user does."""
    secret = page.locator("[data-secret]").inner_text()
    page.get_by_label("I have stored this key").check()
    page.get_by_role("button", name="Done").click()
    page.locator("#dialog:not([open])").wait_for(state="attached")
    page.locator("[data-secret]").wait_for(state="detached")
    return secret


def rotate_with_overlap(page: Page, name: str) -> str:
    page.get_by_role("link", name=f"Rotate {name}").click()
    page.get_by_label("How long both keys work").select_option("3600")
    page.get_by_role("button", name="Rotate").click()
    page.get_by_text("The old key").wait_for()
    return taken(page)


def test_two_clicks_on_a_busy_page_make_one_key(site: Site, browser: Browser) -> None:
    """Both are handled before the button is disabled. The first of two keys would never be seen."""
    known = site.quickstart
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/keys/")
        page.get_by_role("link", name="Create a key").click()
        page.get_by_label("Name", exact=True).fill("clicked-twice")
        page.get_by_role("button", name="Create", exact=True).evaluate("each => { each.click(); each.click(); }")
        taken(page)
        page = person.go(f"/o/{SLUG}/keys/?q=clicked-twice")
        assert page.locator("#results tbody tr").count() == 1
        assert person.errors == []


def test_rotation_with_and_without_overlap(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/keys/")
        first = make(page, "turning")
        second = rotate_with_overlap(page, "turning")
        assert second not in (first, "")
        page.locator("tr", has_text="turning").get_by_text("Rotated").wait_for()
        assert works(site, first)
        assert works(site, second)
        # While the old key works, the new one cannot be rotated: the dialog says so.
        page.get_by_role("link", name="Rotate turning").click()
        page.get_by_role("button", name="Rotate").click()
        page.get_by_text("This key is not active").wait_for()
        page.get_by_role("link", name="Cancel").click()

        third = make(page, "at once")
        page.get_by_role("link", name="Rotate at once").click()
        page.get_by_label("How long both keys work").select_option("0")
        page.get_by_role("button", name="Rotate").click()
        page.get_by_text("has stopped working").wait_for()
        fourth = taken(page)
        assert works(site, fourth)
        assert not works(site, third)
        assert person.errors == []


def test_a_long_name_without_spaces_wraps_and_keeps_the_layout(site: Site, browser: Browser) -> None:
    known, name = site.quickstart, "k" * 60
    width = "document.documentElement.scrollWidth"
    boxes = "[...document.querySelectorAll('#dialog, main .scroller')]"
    hidden = f"{boxes}.filter((box) => box.scrollWidth > box.clientWidth).length"
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/keys/create/")
        page.get_by_label("Name", exact=True).fill(name)
        page.get_by_role("button", name="Create", exact=True).click()
        page.locator("[data-secret]").wait_for()
        assert page.evaluate(width) == PHONE["width"]
        page = person.go(f"/o/{SLUG}/keys/")
        page.locator(f"td a[title={name}]").click()
        page.locator("#drawer").get_by_role("link", name="Rotate").click()
        page.get_by_label("How long both keys work").wait_for()
        assert page.evaluate(hidden) == 0
        page.get_by_role("button", name="Rotate").click()
        page.get_by_text("The old key").wait_for()
        assert page.evaluate(hidden) == 0
        taken(page)
        # The old key's row shows until when it works, and every column is visible.
        page = person.go(f"/o/{SLUG}/keys/")
        page.get_by_text("Rotated").first.wait_for()
        assert page.evaluate(hidden) == 0


def test_on_a_phone_every_action_is_reached_from_a_row(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/keys/")
        make(page, "pocket")
        page.locator("td a[title=pocket]").click()
        drawer = page.locator("#drawer")
        drawer.get_by_role("heading", name="Limits").wait_for()
        drawer.get_by_role("link", name="Edit").click()
        page.get_by_label("Requests per minute").fill("12")
        page.locator("#dialog").get_by_text("review", exact=True).click()
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Key saved.").wait_for()
        page.locator("td a[title=pocket]").click()
        drawer.get_by_text("12", exact=True).wait_for()
        drawer.locator("dd", has_text="review").wait_for()
        # A dialog returns the focus to its drawer, and the drawer to its row.
        drawer.get_by_role("link", name="Revoke").click()
        page.get_by_text("Revoke this key?").wait_for()
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.textContent.trim()") == "Revoke"
        page.keyboard.press("Escape")
        assert "pocket" in page.evaluate("document.activeElement.textContent")
        assert person.axe() == []
        assert person.errors == []


def test_a_preset_fills_the_form_and_keeps_a_name_that_was_typed(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/keys/")
        page.get_by_role("link", name="Create a key").click()
        name = page.get_by_label("Name", exact=True)
        assert name.evaluate("field => field.value.slice(field.selectionStart, field.selectionEnd)") != ""
        page.get_by_role("button", name="CI", exact=True).click()
        assert name.input_value().startswith("CI ")
        assert page.get_by_label("Requests per minute").input_value() == "30"
        assert page.get_by_label("code", exact=True).is_checked()
        assert not page.get_by_label("plan", exact=True).is_checked()
        name.fill("my own")
        page.get_by_role("button", name="Coding agent").click()
        assert name.input_value() == "my own"
        assert page.get_by_label("Requests per minute").input_value() == ""
        assert not page.get_by_label("code", exact=True).is_checked()
        assert page.get_by_role("button", name="Coding agent").get_attribute("aria-pressed") == "true"
        assert person.axe() == []
        page.get_by_role("button", name="Create", exact=True).click()
        taken(page)
        page.locator("td a[title='my own']").wait_for()
        assert person.errors == []
