"""axe on the main pages: both themes, both languages, a desk and a phone; and nothing the browser complains about."""

from itertools import product

import pytest
from playwright.sync_api import Browser

from codexflow.testing.browser import DESKTOP, PHONE, visitor
from codexflow.testing.pictures import SLUG, set_language
from codexflow.testing.site import Site

pytestmark = pytest.mark.browser

PUBLIC = ("/", "/accounts/login/", "/accounts/signup/", "/accounts/password/reset/", "/nowhere/")
INSIDE = (
    f"/o/{SLUG}/",
    f"/o/{SLUG}/logs/?range=14d",
    f"/o/{SLUG}/logs/?id=00000000",
    f"/o/{SLUG}/keys/",
    f"/o/{SLUG}/keys/create/",
    f"/o/{SLUG}/billing/",
    f"/o/{SLUG}/settings/",
    "/settings/",
    "/accounts/email/",
    "/accounts/password/change/",
    "/accounts/2fa/",
    "/accounts/sessions/",
)
LOOKS = list(product(("light", "dark"), ("en", "tr"), (("desktop", DESKTOP), ("phone", PHONE))))


@pytest.fixture(scope="module")
def busy_site(site: Site) -> Site:
    """The site with two weeks of usage."""
    site.run("codexflow.testing.scene", SLUG)
    return site


@pytest.mark.parametrize(
    ("theme", "language", "size"), LOOKS, ids=[f"{theme}-{language}-{size[0]}" for theme, language, size in LOOKS]
)
def test_no_serious_findings(
    busy_site: Site, browser: Browser, theme: str, language: str, size: tuple[str, dict[str, int]]
) -> None:
    known = busy_site.quickstart
    findings: list[str] = []
    with visitor(browser, busy_site.url, size=size[1]) as person:
        person.prefer(theme=theme, language=language)

        def look() -> None:
            findings.extend(person.axe())
            wide = person.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                findings.append(f"{person.page.url}: {wide} px wider than the window")

        for path in PUBLIC:
            person.go(path)
            look()
        person.sign_in(known.admin_email, known.admin_password)
        set_language(person, language)
        for path in INSIDE:
            person.go(path)
            look()
        page = person.go(f"/o/{SLUG}/logs/?range=14d")
        page.locator("td a[hx-get]").first.click()
        page.locator("#drawer [data-request]").wait_for()
        look()
        page = person.go(f"/o/{SLUG}/keys/")
        page.locator("a[hx-get$='/revoke/']").first.click()
        page.locator("#dialog form").wait_for()
        look()
        # The operators' pages are another's: only that they work under their own policy is ours to see.
        person.go("/ops/")
        person.go("/ops/logs/requestlog/")
        findings += person.complaints
    assert findings == []
