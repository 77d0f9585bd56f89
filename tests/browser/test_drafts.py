"""Text typed into a form whose session had ended: it is offered again after signing in."""

import json

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import DESKTOP, PHONE, Visitor, visitor
from tests.support.pictures import SLUG
from tests.support.site import Site

pytestmark = pytest.mark.browser
STORED = "sessionStorage.getItem('draft')"


def sign_in_again(person: Visitor, site: Site) -> None:
    page, known = person.page, site.quickstart
    page.wait_for_url("**/accounts/login/?next=**")
    expect(page.get_by_text("Your session ended before this was saved")).to_be_visible()
    page.fill("input[name=login]", known.admin_email)
    page.fill("input[name=password]", known.admin_password)
    page.press("input[name=password]", "Enter")


def offer_of(page: Page) -> None:
    expect(page.get_by_text("What you typed before you signed in was not saved.")).to_be_visible()


def test_a_dialog_is_filled_in_again(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=PHONE) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go(f"/o/{SLUG}/keys/")
        page.get_by_role("link", name="Create a key").click()
        page.get_by_label("Name", exact=True).fill("typed before")
        page.locator("#dialog summary", has_text="Limits").click()
        page.get_by_label("Requests per minute").fill("7")
        page.locator("#dialog summary", has_text="Permissions").click()
        page.get_by_label("review", exact=True).check()
        page.get_by_label("Allowed IPs").fill("cfx_abcdefgh_thisisnokey")
        person.context.clear_cookies(name="sessionid")
        page.get_by_role("button", name="Create", exact=True).click()
        sign_in_again(person, site)
        page.wait_for_url("**/keys/")
        offer_of(page)
        kept = page.evaluate(STORED)
        assert "typed before" in kept
        assert "cfx_" not in kept
        assert known.admin_password not in kept
        assert person.axe() == []
        page.get_by_role("button", name="Fill it in again").click()
        expect(page.locator("#dialog").get_by_label("Name", exact=True)).to_have_value("typed before")
        expect(page.get_by_label("Requests per minute")).to_have_value("7")
        expect(page.get_by_label("Requests per minute")).to_be_visible()
        expect(page.get_by_label("review", exact=True)).to_be_checked()
        assert page.get_by_label("Allowed IPs").input_value() == ""
        assert page.evaluate(STORED) is None
        assert person.errors == []


def test_a_form_of_a_page_is_filled_in_again_or_forgotten(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        for answer in ("Fill it in again", "Discard"):
            page = person.go("/settings/")
            page.get_by_label("Name").fill("Ada Again")
            person.context.clear_cookies(name="sessionid")
            page.get_by_role("button", name="Save").click()
            sign_in_again(person, site)
            page.wait_for_url("**/settings/")
            offer_of(page)
            page.get_by_role("button", name=answer).click()
            expect(page.get_by_text("What you typed before")).to_have_count(0)
            was = page.get_by_label("Name").input_value()
            assert (was == "Ada Again") is (answer != "Discard")
            assert page.evaluate(STORED) is None
        assert person.errors == []


def test_only_the_user_who_typed_it_gets_it_back_and_only_what_was_lost(site: Site, browser: Browser) -> None:
    known = site.quickstart
    with visitor(browser, site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        page = person.go("/settings/")
        page.get_by_label("Name").fill("Ada Saved")
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Settings saved.").wait_for()
        assert page.evaluate(STORED) is None

        page.get_by_label("Name").fill("Ada Lost")
        person.context.clear_cookies(name="sessionid")
        page.get_by_role("button", name="Save").click()
        page.wait_for_url("**/accounts/login/?next=**")
        draft = json.loads(page.evaluate(STORED))
        assert draft["isLost"]
        page.evaluate("draft => sessionStorage.setItem('draft', draft)", json.dumps({**draft, "user": "another"}))
        sign_in_again(person, site)
        page.wait_for_url("**/settings/")
        assert page.get_by_text("What you typed before").count() == 0
        assert page.evaluate(STORED) is None
        assert person.errors == []
