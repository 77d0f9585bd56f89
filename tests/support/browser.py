"""A real browser on the site's pages: its console errors, and axe's findings."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
INSTALL = "apt-get update && apt-get install -y --no-install-recommends chromium"
DESKTOP, PHONE, NARROW = ({"width": w, "height": h} for w, h in [(1440, 900), (390, 844), (320, 640)])
_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--disable-sync",
    # No network beyond loopback, even when a page links there.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
_AXE = Path(__file__).parent / "vendor" / "axe-4.14.1.min.js"
SERIOUS_OR_WORSE = ("serious", "critical")
MODERATE_OR_WORSE = ("moderate", *SERIOUS_OR_WORSE)
# As for actions. The five seconds of Playwright's own make a slow machine a failure.
expect.set_options(timeout=30_000)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium, driven by Playwright."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=_ARGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visitor:
    """One user's browser window. Records console errors and page errors."""

    context: BrowserContext
    site_url: str
    errors: list[str] = field(default_factory=list)
    page: Page = field(init=False)

    def __post_init__(self) -> None:
        # Init scripts come from outside the page, so its content security policy does not apply to them.
        self.context.add_init_script(path=str(_AXE))
        self.page = self.context.new_page()
        self.page.on("console", self._record)
        self.page.on("pageerror", lambda error: self.errors.append(f"{self.page.url}: {error}"))

    def _record(self, message: ConsoleMessage) -> None:
        # An invalid form (422), a missing page (404) and a forged sign-in (401) are expected responses.
        is_expected = any(f"status of {status}" in message.text for status in (401, 404, 422))
        if message.type == "error" and not is_expected:
            self.errors.append(f"{self.page.url}: {message.text}")

    def go(self, path: str) -> Page:
        """Open a page of the site and wait until it has loaded."""
        self.page.goto(f"{self.site_url}{path}")
        self.settle()
        return self.page

    def settle(self) -> None:
        """Wait until the page and its fonts have loaded."""
        self.page.wait_for_load_state("load")
        self.page.evaluate("document.fonts.ready")

    def sign_in(self, email: str, password: str) -> None:
        page = self.go("/accounts/login/")
        page.fill("input[name=login]", email)
        page.fill("input[name=password]", password)
        page.press("input[name=password]", "Enter")
        page.wait_for_url("**/o/*/")
        self.settle()

    def prefer(self, *, theme: str, language: str) -> None:
        """Set the preferences that the site keeps in cookies."""
        host = urlsplit(self.site_url).hostname or ""
        self.context.add_cookies(
            [
                {"name": "theme", "value": theme, "domain": host, "path": "/"},
                {"name": "django_language", "value": language, "domain": host, "path": "/"},
            ]
        )

    def axe(self, *, colours_only: bool = False, impacts: Collection[str] = MODERATE_OR_WORSE) -> list[str]:
        """Run axe on the page, with all rules or only those about colour. Returns the findings of these impacts."""
        rules = ", runOnly: ['color-contrast', 'link-in-text-block']" if colours_only else ""
        found: Any = self.page.evaluate(f"axe.run(document, {{resultTypes: ['violations']{rules}}})")
        return [
            f"{self.page.url}: {each['id']}: {json.dumps([node['target'] for node in each['nodes']])} {each['help']}:"
            f" {each['nodes'][0]['failureSummary']}"
            for each in found["violations"]
            if each["impact"] in impacts
        ]


@contextmanager
def visitor(browser: Browser, site_url: str, *, size: dict[str, int]) -> Iterator[Visitor]:
    """Open a window with an empty profile."""
    # Firefox has the like of these as preferences.
    is_chromium = browser.browser_type.name == "chromium"
    context = browser.new_context(
        viewport={"width": size["width"], "height": size["height"]},
        timezone_id="Europe/Istanbul",
        locale="en-US",
        reduced_motion="reduce" if is_chromium else None,
        permissions=["clipboard-read", "clipboard-write"] if is_chromium else None,
    )
    context.set_default_timeout(20_000)
    try:
        yield Visitor(context, site_url)
    finally:
        context.close()
