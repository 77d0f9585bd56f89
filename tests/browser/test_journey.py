"""A new user's journey in a real browser: sign up, create a key, make a call, see the call and its cost."""

import pytest
from playwright.sync_api import Browser

from tests.browser.calls import call
from tests.support.browser import DESKTOP, visitor
from tests.support.site import Site

pytestmark = pytest.mark.browser
COLOUR = "getComputedStyle(document.documentElement).getPropertyValue('--color-base-200')"


@pytest.mark.both_browsers("nightly")
def test_from_signing_up_to_the_cost_of_the_first_call(site: Site, browser: Browser) -> None:
    name = f"grace-{browser.browser_type.name}"  # tests without xdist share one site
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = person.go("/")
        page.get_by_role("link", name="Get an API key").click()
        page.fill("input[name=email]", f"{name}@example.org")
        page.fill("input[name=password1]", "correct horse battery")
        page.get_by_role("button", name="Create an account").click()
        page.get_by_text("Waiting for your first request").wait_for()
        assert f"/o/{name}/" in page.url
        # The page fills the key into its examples.
        assert "export CODEXFLOW_API_KEY=cfx_" in page.locator("main").inner_text()

        page.locator("main .codeblock").first.get_by_role("button", name="Copy the code").click()
        page.get_by_text("Not copied: we only know the beginning").wait_for()

        page.get_by_role("link", name="Create a key").click()
        page.get_by_label("Name").fill("laptop")
        page.get_by_role("button", name="Create", exact=True).click()
        secret = page.locator("[data-secret]").inner_text()
        assert secret.startswith("cfx_")
        done = page.get_by_role("button", name="Done")
        assert done.is_disabled()
        page.keyboard.press("Escape")
        page.mouse.click(5, 5)
        assert page.locator("[data-secret]").is_visible(), "neither Escape nor the backdrop takes the secret away"
        page.get_by_role("button", name="Copy the key").click()
        page.get_by_text("Copied", exact=True).first.wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == secret
        page.get_by_role("tab", name="Claude Code").click()
        page.get_by_role("tabpanel", name="Claude Code").get_by_role("button", name="Copy the code").click()
        page.wait_for_function("navigator.clipboard.readText().then((text) => text.includes('ANTHROPIC_AUTH_TOKEN'))")
        assert secret in page.evaluate("navigator.clipboard.readText()")
        page.get_by_label("I have stored this key").check()
        done.click()
        page.get_by_text("laptop was created").wait_for()
        assert secret not in page.content()

        request_id = call(site.url, secret)
        # The waiting page becomes the overview by itself.
        page.locator("#first-request").get_by_role("link", name="Claude Code").wait_for()
        page.locator('[data-kpi="requests"] .kpi-value').wait_for()
        assert page.locator('[data-kpi="requests"] .kpi-value').inner_text() == "1"
        assert page.locator('[data-kpi="cost"] .kpi-value').inner_text() != "$0.00"
        page.get_by_role("link", name="ago").click()
        drawer = page.locator("#drawer")
        drawer.get_by_text("Why this cost").wait_for()
        assert request_id in drawer.inner_text()
        assert request_id in page.url
        page.keyboard.press("Escape")
        page.wait_for_function("!location.search.includes('request=')")
        assert page.evaluate("document.activeElement.getAttribute('href')").endswith(f"/logs/{request_id}/")

        page.goto(f"{site.url}/o/{name}/logs/?request={request_id}")
        drawer.get_by_text("Why this cost").wait_for()
        page.keyboard.press("Escape")
        page.select_option("select[name=status]", "errors")
        page.get_by_text("No request matches these filters").wait_for()
        assert "status=errors" in page.url
        page.go_back()
        page.locator(f"a[href$='/logs/{request_id}/']").wait_for()
        assert person.errors == []


@pytest.mark.both_browsers("nightly")
def test_the_theme_changes_at_once_and_is_remembered(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        page = person.go("/")
        light = page.evaluate(COLOUR)
        page.get_by_role("button", name="Switch between light and dark").click()
        dark = page.evaluate(COLOUR)
        assert light != dark
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.evaluate(COLOUR) == dark
        assert person.errors == []
