"""Passkeys, authenticator apps and recovery codes, with Chromium's virtual authenticator."""

import re

import pytest
from allauth.mfa.totp.internal import auth as totp
from playwright.sync_api import Browser, Page

from codexflow.lib import clock
from tests.support.browser import DESKTOP, Visitor, visitor
from tests.support.site import Site

pytestmark = pytest.mark.browser
PASSWORD = "correct horse battery"
# A device that stores keys, verifies its user and approves by itself.
DEVICE = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


def signed_up(person: Visitor, email: str) -> Page:
    page = person.go("/accounts/signup/")
    page.fill("input[name=email]", email)
    page.fill("input[name=password1]", PASSWORD)
    page.press("input[name=password1]", "Enter")
    page.wait_for_url("**/o/*/")
    return page


def reauthenticated(person: Visitor, path: str) -> Page:
    """Open a page that asks for the password again."""
    page = person.go(path)
    page.fill("#id_password", PASSWORD)
    page.press("#id_password", "Enter")
    page.wait_for_url(f"**{path}")
    return page


def signed_out(person: Visitor) -> Page:
    page = person.go("/accounts/logout/")
    page.locator("main").get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Start free").wait_for()
    return person.go("/accounts/login/")


def test_a_passkey_opens_the_account_without_a_password(site: Site, browser: Browser) -> None:
    # Browsers bind passkeys to host names, not to IP addresses.
    with visitor(browser, site.url.replace("127.0.0.1", "localhost"), size=DESKTOP) as person:
        page = signed_up(person, "hedy@example.org")
        devices = person.context.new_cdp_session(page)
        devices.send("WebAuthn.enable")
        device = devices.send("WebAuthn.addVirtualAuthenticator", {"options": DEVICE})["authenticatorId"]
        page = reauthenticated(person, "/accounts/2fa/webauthn/add/")
        page.get_by_label("Name").fill("laptop")
        assert page.get_by_label("Sign in with this key alone").is_checked()
        page.locator("#mfa_webauthn_add").click()
        page.get_by_role("button", name="Download codes").or_(
            page.get_by_role("link", name="Download codes")
        ).wait_for()
        held = devices.send("WebAuthn.getCredentials", {"authenticatorId": device})["credentials"]
        assert [each["isResidentCredential"] for each in held] == [True]

        page = signed_out(person)
        page.get_by_role("button", name="Sign in with a passkey").click()
        page.wait_for_url("**/o/hedy/")
        page = person.go("/accounts/2fa/webauthn/")
        assert "laptop" in page.locator("main").inner_text()
        assert person.errors == []


def test_a_recovery_code_replaces_the_app_once(site: Site, browser: Browser) -> None:
    with visitor(browser, site.url, size=DESKTOP) as person:
        signed_up(person, "joan@example.org")
        page = reauthenticated(person, "/accounts/2fa/totp/activate/")
        secret = page.locator("#authenticator_secret").inner_text()
        activate(page, "000000")
        page.get_by_text("Incorrect code.").wait_for()
        activated = page.get_by_text("Unused codes")
        activate(page, code_of(secret))
        page.get_by_text("Incorrect code.").or_(activated).first.wait_for()
        if not activated.count():
            activate(page, code_of(secret))  # the code expired in between
            activated.wait_for()
        codes = re.findall(r"\b[0-9a-f]{8}\b", page.locator("main").inner_text())
        assert len(codes) == 10

        page = signed_out(person)
        second_step(page, codes[0])
        page.wait_for_url("**/o/joan/")
        page = signed_out(person)
        second_step(page, codes[0])
        page.get_by_text("Incorrect code.").wait_for()
        enter_code(page, codes[1])
        page.wait_for_url("**/o/joan/")
        assert person.errors == []


def activate(page: Page, code: str) -> None:
    page.get_by_label("Code from the app").fill(code)
    page.get_by_role("button", name="Turn on").click()


def code_of(secret: str) -> str:
    return str(totp.format_hotp_value(totp.hotp_value(secret, clock.now_ms() // 30_000)))


def second_step(page: Page, code: str) -> None:
    """Sign in with the password and enter the code."""
    page.fill("input[name=login]", "joan@example.org")
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/accounts/2fa/authenticate/")
    enter_code(page, code)


def enter_code(page: Page, code: str) -> None:
    page.fill("input[name=code]", code)
    page.press("input[name=code]", "Enter")
