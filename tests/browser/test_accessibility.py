"""axe on every page, in both themes and languages, on desktop and phone; and no browser errors. In Firefox on a cut.

That is the nightly run, with --whole. Otherwise each page is opened in one of the languages, as the seed decides.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest
from django.conf import settings
from playwright.sync_api import Browser

from codexflow.tests.access import EXPECTED
from tests.browser.pages import ACTIONS, BELOW, CUT, EXCLUDED, INSIDE, LINKED, PUBLIC, linked
from tests.seeds import seed_of
from tests.support.browser import (
    DESKTOP,
    MODERATE_OR_WORSE,
    NARROW,
    PHONE,
    SERIOUS_OR_WORSE,
    Visitor,
    visitor,
)
from tests.support.pictures import SLUG, set_language
from tests.support.site import Site
from tests.support.targets import small_targets

pytestmark = pytest.mark.browser

# Themes change colours and windows change the layout, but not the page: it is loaded once and checked four times, with
# all rules for two of the combinations and with the colour rules for the others.
Look = tuple[str, dict[str, int], bool]
LOOKS: list[Look] = [("light", DESKTOP, True), ("dark", DESKTOP, False), ("dark", PHONE, True), ("light", PHONE, False)]
IN_BOTH_LANGUAGES = pytest.mark.parametrize("language", dict(settings.LANGUAGES))


@pytest.fixture(scope="module")
def busy_site(site: Site) -> Site:
    """The site with two weeks of usage, a second member and an invitation."""
    site.run("tests.support.demo_data", SLUG)
    return site


@dataclass(frozen=True, slots=True)
class Cut:
    """Part of the pages and of their looks that this run opens in one browser."""

    is_everything: bool
    is_firefox: bool
    seed: int

    def of(self, pages: Iterable[str], language: str) -> list[str]:
        """Choose pages by their names: every second one, and the others in the other language."""
        if self.is_everything:
            return list(pages)
        known = sorted(CUT.intersection(pages) if self.is_firefox else pages)
        turn = self.seed + list(dict(settings.LANGUAGES)).index(language)
        return known[turn % 2 :: 2]

    def looks(self, language: str) -> list[Look]:
        """All, or half of them with all rules: two languages together have every theme in every size."""
        if self.is_everything:
            return LOOKS
        themes = ("light", "dark") if (self.seed // 2 + (language == "en")) % 2 else ("dark", "light")
        return [(theme, size, True) for theme, size in zip(themes, (DESKTOP, PHONE), strict=True)]


@pytest.fixture
def cut(browser: Browser, pytestconfig: pytest.Config) -> Cut:
    is_firefox = browser.browser_type.name == "firefox"
    return Cut(pytestconfig.getoption("--whole"), is_firefox, seed_of(pytestconfig))


def test_every_page_is_checked() -> None:
    pages = {
        name
        for name, access in EXPECTED.items()
        if not name.startswith("api-") and 200 in {access.of("get", who) for who in ("owner", "anonymous", "operator")}
    }
    visited = {*PUBLIC, *INSIDE, *LINKED, *BELOW} - {""}
    assert sorted(pages - visited - EXCLUDED) == [], "pages that tests/browser/pages.py does not know"
    # Some need what this site has and the one of `access.py` has not: cards that are saved, a plan that may be tried.
    assert sorted(visited - pages - {"account_set_password", "card", "recharge", "trial"}) == []


def findings(person: Visitor, looks: list[Look] = LOOKS, *, is_ours: bool = True) -> Iterator[str]:
    """Check the current page in these themes and sizes, and its targets in a window of 320 pixels; yields findings.

    Landmarks and targets of a page that a library lays out are the library's: there only serious findings count.
    """
    impacts = MODERATE_OR_WORSE if is_ours else SERIOUS_OR_WORSE
    for theme, size, is_full in looks:
        resize(person, size)
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
        found = person.axe(colours_only=not is_full, impacts=impacts)
        yield from (f"{theme}, {size['width']}: {each}" for each in found)
        yield from too_wide(person)
    resize(person, NARROW)
    yield from too_wide(person)
    if is_ours:
        yield from small_targets(person.page)


def too_wide(person: Visitor) -> Iterator[str]:
    """Yield a finding if the page scrolls sideways, also once its charts have followed a change of the window."""
    wide, window = person.page.evaluate(
        """async () => {
            const root = document.documentElement;
            for (let tries = 0; root.scrollWidth > root.clientWidth && tries < 50; tries++) {
                await new Promise((resolve) => setTimeout(resolve, 16));
            }
            return [root.scrollWidth - root.clientWidth, innerWidth];
        }"""
    )
    if wide > 0:
        yield f"{person.page.url}: {wide} px wider than a window of {window}"


def resize(person: Visitor, size: dict[str, int]) -> None:
    person.page.set_viewport_size({"width": size["width"], "height": size["height"]})


@pytest.mark.both_browsers
@IN_BOTH_LANGUAGES
def test_no_findings_before_signing_in(busy_site: Site, browser: Browser, language: str, cut: Cut) -> None:
    wrong: list[str] = []
    looks = cut.looks(language)
    with visitor(browser, busy_site.url, size=DESKTOP) as person:
        person.prefer(theme="light", language=language)
        for path in [path for name in cut.of(PUBLIC, language) for path in PUBLIC[name]]:
            person.go(path)
            assert person.page.locator(f"html[lang={language}]").count() == 1, path
            wrong += findings(person, looks)
        wrong += person.errors
    assert not wrong, "\n".join(wrong)


@pytest.mark.both_browsers
@IN_BOTH_LANGUAGES
def test_no_findings_after_signing_in(busy_site: Site, browser: Browser, language: str, cut: Cut) -> None:
    known = busy_site.quickstart
    wrong: list[str] = []
    looks = cut.looks(language)
    with visitor(browser, busy_site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        set_language(person, language)
        addresses = [path for name in cut.of(INSIDE, language) for path in INSIDE[name]]
        addresses += [linked(person.page, name) for name in cut.of((*LINKED, *BELOW), language)]
        for path in addresses:
            page = person.go(path)
            if page.locator("#id_password").count():
                wrong += findings(person, looks)  # the page that asks for the password again
                page.fill("#id_password", known.admin_password)
                page.press("#id_password", "Enter")
                page.wait_for_url(f"**{path}")
                person.settle()
            assert page.locator(f"html[lang={language}]").count() == 1, path
            wrong += findings(person, looks)
        resize(person, DESKTOP)
        page = person.go(f"/o/{SLUG}/logs/?range=14d")
        page.locator("td a[hx-get]").first.click()
        page.locator("#drawer [data-request]").wait_for()
        wrong += findings(person, looks)
        resize(person, DESKTOP)
        page = person.go(f"/o/{SLUG}/members/")
        page.locator("a[hx-get$='/invite/']").first.click()
        page.locator("#dialog form").wait_for()
        wrong += findings(person, looks)
        resize(person, DESKTOP)
        page = person.go(f"/o/{SLUG}/keys/")
        page.locator("td a[title]").first.click()
        page.locator("#drawer a[hx-get$='/edit/']").click()
        page.locator("#dialog form").wait_for()
        wrong += findings(person, looks)
        # The operators' tables come from a library: only check that they work under their content security policy.
        set_language(person, "en")  # the language that other tests expect
        person.go("/ops/tables/")
        person.go("/ops/logs/requestlog/")
        wrong += person.errors
    assert not wrong, "\n".join(wrong)


@IN_BOTH_LANGUAGES
def test_no_serious_findings_on_pages_that_an_action_shows(busy_site: Site, browser: Browser, language: str) -> None:
    known = busy_site.quickstart
    wrong: list[str] = []
    with visitor(browser, busy_site.url, size=DESKTOP) as person:
        person.sign_in(known.admin_email, known.admin_password)
        set_language(person, language)
        for table, action in ACTIONS.items():
            resize(person, DESKTOP)
            page = person.go(table)
            page.locator("input.action-select").first.check()
            page.locator("select[name=action]").select_option(action)
            page.locator("button[name=index]").click()
            page.locator("input[type=hidden][name=action]").first.wait_for(state="attached")
            person.settle()
            wrong += findings(person, is_ours=False)
        set_language(person, "en")  # the language that other tests expect
        wrong += person.errors
    assert not wrong, "\n".join(wrong)
