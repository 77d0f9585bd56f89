"""axe on every page, in both themes and languages, on desktop and phone; and no browser errors."""

from collections.abc import Iterator

import pytest
from django.conf import settings
from playwright.sync_api import Browser

from codexflow.tests.access import EXPECTED
from tests.browser.pages import BELOW, EXCLUDED, INSIDE, LINKED, PUBLIC, linked
from tests.support.browser import DESKTOP, PHONE, Visitor, visitor
from tests.support.pictures import SLUG, set_language
from tests.support.site import Site

pytestmark = pytest.mark.browser

# Themes change colours and windows change the layout, but not the page: it is loaded once and checked four times, with
# all rules for two of the combinations and with the colour rules for the others.
LOOKS = [("light", DESKTOP, True), ("dark", DESKTOP, False), ("dark", PHONE, True), ("light", PHONE, False)]


@pytest.fixture(scope="module")
def busy_site(site: Site) -> Site:
    """The site with two weeks of usage, a second member and an invitation."""
    site.run("tests.support.demo_data", SLUG)
    return site


def test_every_page_is_checked() -> None:
    pages = {
        name
        for name, access in EXPECTED.items()
        if not name.startswith("api-") and 200 in (access.of("get", "owner"), access.of("get", "anonymous"))
    }
    visited = {*PUBLIC, *INSIDE, *LINKED, *BELOW} - {""}
    assert sorted(pages - visited - EXCLUDED) == [], "pages that tests/browser/pages.py does not know"
    assert sorted(visited - pages - {"account_set_password"}) == []


def findings(person: Visitor) -> Iterator[str]:
    """Check the current page in both themes and sizes; yields findings."""
    for theme, size, is_full in LOOKS:
        person.page.set_viewport_size({"width": size["width"], "height": size["height"]})
        person.page.evaluate(
            """async theme => {
                document.documentElement.dataset.theme = theme;
                document.dispatchEvent(new Event("themechange"));
                // Transitions of colours that are inherited start one after the other.
                const isMoving = () => document.getAnimations().some((each) => each instanceof CSSTransition);
                let quiet = 0;
                for (let tries = 0; quiet < 3 && tries < 50; tries++) {
                    await new Promise((resolve) => setTimeout(resolve, 16));
                    quiet = isMoving() ? 0 : quiet + 1;
                }
            }""",
            theme,
        )
        yield from (f"{theme}, {size['width']}: {found}" for found in person.axe(colours_only=not is_full))
        wide = person.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 0:
            yield f"{person.page.url}: {wide} px wider than a window of {size['width']}"


@pytest.mark.parametrize("language", dict(settings.LANGUAGES))
def test_no_serious_findings_before_signing_in(busy_site: Site, browser: Browser, language: str) -> None:
    wrong: list[str] = []
    with visitor(browser, busy_site.url, size=DESKTOP) as person:
        person.prefer(theme="light", language=language)
        for paths in PUBLIC.values():
            for path in paths:
                person.go(path)
                assert person.page.locator(f"html[lang={language}]").count() == 1, path
                wrong += findings(person)
        wrong += person.errors
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("language", dict(settings.LANGUAGES))
def test_no_serious_findings_after_signing_in(busy_site: Site, browser: Browser, language: str) -> None:
    known = busy_site.quickstart
    wrong: list[str] = []
    with visitor(browser, busy_site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        set_language(person, language)
        addresses = [path for paths in INSIDE.values() for path in paths]
        addresses += [linked(person.page, name) for name in (*LINKED, *BELOW)]
        for path in addresses:
            page = person.go(path)
            if page.locator("#id_password").count():
                wrong += findings(person)  # the page that asks for the password again
                page.fill("#id_password", known.admin_password)
                page.press("#id_password", "Enter")
                page.wait_for_url(f"**{path}")
                person.settle()
            assert page.locator(f"html[lang={language}]").count() == 1, path
            wrong += findings(person)
        person.page.set_viewport_size({"width": DESKTOP["width"], "height": DESKTOP["height"]})
        page = person.go(f"/o/{SLUG}/logs/?range=14d")
        page.locator("td a[hx-get]").first.click()
        page.locator("#drawer [data-request]").wait_for()
        wrong += findings(person)
        person.page.set_viewport_size({"width": DESKTOP["width"], "height": DESKTOP["height"]})
        page = person.go(f"/o/{SLUG}/members/")
        page.locator("a[hx-get$='/invite/']").first.click()
        page.locator("#dialog form").wait_for()
        wrong += findings(person)
        person.page.set_viewport_size({"width": DESKTOP["width"], "height": DESKTOP["height"]})
        page = person.go(f"/o/{SLUG}/keys/")
        page.locator("td a[title]").first.click()
        page.locator("#drawer a[hx-get$='/edit/']").click()
        page.locator("#dialog form").wait_for()
        wrong += findings(person)
        # The operators' pages come from a library: only check that they work under their content security policy.
        set_language(person, "en")  # the language that other tests expect
        person.go("/ops/")
        person.go("/ops/logs/requestlog/")
        wrong += person.errors
    assert not wrong, "\n".join(wrong)
