"""`make screenshots`: screenshots of the main pages in both themes, both languages, and on desktop and phone.

They are written to artifacts/; `--readme` instead renews the few of the README and the front page.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from playwright.sync_api import Browser

from codexflow.env import REPOSITORY
from codexflow.lib.clock import now
from tests.support.browser import DESKTOP, PHONE, Visitor, chromium, visitor
from tests.support.site import Site, running_site

SCREENSHOTS = REPOSITORY / "artifacts"
README = REPOSITORY / "docs" / "images"
FRONT_PAGE = REPOSITORY / "static" / "img"
SLUG = "codexflow"
LOOKS = [
    ("light", "en", "desktop"),
    ("dark", "tr", "desktop"),
    ("dark", "en", "phone"),
    ("light", "tr", "phone"),
]
PUBLIC = [
    ("landing", "/"),
    ("pricing", "/pricing/"),
    ("docs", "/docs/"),
    ("docs-client", "/docs/clients/claude-code/"),
    ("reference", "/docs/reference/"),
    ("doctor", "/doctor/"),
    ("status", "/status/"),
    ("terms", "/terms/"),
    ("components", "/dev/components/"),
    ("login", "/accounts/login/"),
    ("signup", "/accounts/signup/"),
    ("not-found", "/nowhere/"),
]
INSIDE = [
    ("overview", f"/o/{SLUG}/?range=30d&metric=cost"),
    ("overview-24h", f"/o/{SLUG}/?range=24h&metric=tokens&group=key"),
    ("logs", f"/o/{SLUG}/logs/?range=14d"),
    ("logs-empty", f"/o/{SLUG}/logs/?id=00000000"),
    ("playground", f"/o/{SLUG}/playground/"),
    ("exports", f"/o/{SLUG}/logs/exports/"),
    ("keys", f"/o/{SLUG}/keys/"),
    ("billing", f"/o/{SLUG}/billing/"),
    ("members", f"/o/{SLUG}/members/"),
    ("audit", f"/o/{SLUG}/audit/"),
    ("organization", f"/o/{SLUG}/settings/"),
    ("settings", "/settings/"),
    ("email", "/accounts/email/"),
    ("password", "/accounts/password/change/"),
    ("mfa", "/accounts/2fa/"),
    ("connections", "/accounts/3rdparty/"),
    ("sessions", "/accounts/sessions/"),
    ("ops", "/ops/"),
    ("ops-requests", "/ops/logs/requestlog/"),
    ("ops-reconciliation", f"/ops/logs/dayreconciled/{now().date() - timedelta(days=1)}/change/"),
]


@contextmanager
def visiting(browser: Browser, site: Site, theme: str, language: str, size: str) -> Iterator[Visitor]:
    with visitor(browser, site.url, size=DESKTOP if size == "desktop" else PHONE) as person:
        person.prefer(theme=theme, language=language)
        yield person


def set_language(person: Visitor, language: str) -> None:
    """Set the signed-in user's language, which takes precedence over the cookie."""
    page = person.go("/settings/")
    page.select_option("select[name=language]", language)
    page.select_option("select[name=timezone]", "Europe/Istanbul")
    page.click("main form button.btn-primary")
    page.wait_for_url("**/settings/")
    page.locator(f"html[lang={language}]").wait_for()


def take(person: Visitor, name: str, look: tuple[str, str, str]) -> Path:
    path = SCREENSHOTS / f"{name}-{look[1]}-{look[0]}-{look[2]}.png"
    person.page.evaluate("document.querySelectorAll('#toasts > *').forEach((each) => each.remove())")
    person.page.screenshot(path=path, full_page="dialog" not in name and "drawer" not in name)
    return path


def take_all(browser: Browser, site: Site, look: tuple[str, str, str], number: int) -> None:
    with visiting(browser, site, *look) as person:
        for name, path in PUBLIC:
            person.go(path)
            take(person, name, look)
        page = person.go("/accounts/signup/")
        page.fill("input[name=email]", f"ada{number}@example.org")
        page.fill("input[name=password1]", "correct horse battery")
        page.press("input[name=password1]", "Enter")
        page.wait_for_url("**/o/*/")
        person.settle()
        take(person, "first-run", look)
        page.locator("a[hx-get$='/keys/create/']").first.click()
        page.locator("#dialog form").wait_for()
        take(person, "dialog-create", look)
        page.fill("#dialog input[name=name]", "prod-web")
        page.click("#dialog button.btn-primary")
        page.locator("[data-secret]").wait_for()
        take(person, "dialog-secret", look)
    with visiting(browser, site, *look) as person:
        known = site.quickstart
        person.sign_in(known.admin_email, known.admin_password)
        set_language(person, look[1])
        for name, path in INSIDE:
            page = person.go(path)
            take(person, name, look)
        page = person.go(f"/o/{SLUG}/logs/?range=14d")
        page.locator("td a[hx-get]").nth(3).click()
        page.locator("#drawer [data-request]").wait_for()
        take(person, "drawer", look)
        page = person.go(f"/o/{SLUG}/keys/")
        page.locator("td a[title]").nth(1).click()
        page.locator("#drawer a[hx-get$='/edit/']").wait_for()
        take(person, "drawer-key", look)
        page.locator("#drawer a[hx-get$='/rotate/']").click()
        page.locator("#dialog form").wait_for()
        take(person, "dialog-rotate", look)
        page.keyboard.press("Escape")
        page.locator("#drawer a[hx-get$='/revoke/']").click()
        page.locator("#dialog form").wait_for()
        take(person, "dialog-revoke", look)
        page = person.go("/accounts/2fa/totp/activate/")
        if page.locator("input[name=password]").count():
            take(person, "reauthenticate", look)
            page.fill("input[name=password]", known.admin_password)
            page.press("input[name=password]", "Enter")
            page.locator("#authenticator_secret").wait_for()
        take(person, "totp", look)
        for error in person.errors:
            sys.stdout.write(f"{error}\n")


def renew_readme(browser: Browser, site: Site) -> None:
    today = now().date()
    days = f"range=custom&from={today - timedelta(days=13)}&to={today}"  # those of the demo data
    shots = [
        (README / "overview.png", "light", (1200, 720), f"/o/{SLUG}/?{days}"),
        (README / "request.png", "dark", (1200, 720), f"/o/{SLUG}/logs/?range=14d"),
        (FRONT_PAGE / "overview.png", "light", (1280, 800), f"/o/{SLUG}/?{days}"),
    ]
    for file, theme, (width, height), path in shots:
        with visiting(browser, site, theme, "en", "desktop") as person:
            person.page.set_viewport_size({"width": width, "height": height})
            person.sign_in(site.quickstart.admin_email, site.quickstart.admin_password)
            set_language(person, "en")
            page = person.go(path)
            if file.stem == "request":
                page.locator("td a[hx-get]").nth(3).click()
                page.locator("#drawer [data-request]").wait_for()
            # That this is a demo is the operator's matter, not the product's.
            page.evaluate("document.querySelectorAll('#toasts > *, .banner').forEach((each) => each.remove())")
            page.screenshot(path=file)


def main(argv: list[str]) -> int:
    SCREENSHOTS.mkdir(exist_ok=True)
    with running_site() as site, chromium() as browser:
        site.run("tests.support.demo_data", SLUG)
        if "--readme" in argv:
            renew_readme(browser, site)
            return 0
        for number, look in enumerate(LOOKS):
            take_all(browser, site, look, number)
    sys.stdout.write(f"{len(list(SCREENSHOTS.glob('*.png')))} screenshots in {SCREENSHOTS.name}/\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
