"""Every page that a browser can open, by route name. A route that is missing here fails a test."""

import re

from playwright.sync_api import Page

from tests.support.pictures import SLUG

# Without signing in.
PUBLIC = {
    "landing": ["/", "/?stage=review"],
    "pricing": ["/pricing/"],
    "docs": ["/docs/"],
    "docs-page": ["/docs/clients/", "/docs/clients/claude-code/", "/docs/errors/"],
    "docs-reference": ["/docs/reference/"],
    "doctor": ["/doctor/"],
    "status": ["/status/"],
    "terms": ["/terms/"],
    "privacy": ["/privacy/"],
    "dev-components": ["/dev/components/"],
    "account_login": ["/accounts/login/"],
    "account_signup": ["/accounts/signup/"],
    "account_reset_password": ["/accounts/password/reset/"],
    "account_password_reset_completed": ["/accounts/password/reset/done/"],
    "account_inactive": ["/accounts/inactive/"],
    "account_confirm_email": ["/accounts/confirm-email/unknown/"],
    "account_email_verification_sent": ["/accounts/confirm-email/"],
    "github_login": ["/accounts/github/login/"],
    "google_login": ["/accounts/google/login/"],
    "socialaccount_login_cancelled": ["/accounts/3rdparty/login/cancelled/"],
    # A missing page, and a callback without a sign-in in progress.
    "": ["/nowhere/", "/accounts/github/login/callback/"],
}

# For the signed-in owner of the organization.
INSIDE = {
    "overview": [f"/o/{SLUG}/", f"/o/{SLUG}/?range=14d"],
    "log": [f"/o/{SLUG}/logs/?range=14d", f"/o/{SLUG}/logs/?id=00000000"],
    "exports": [f"/o/{SLUG}/logs/exports/"],
    "export-new": [f"/o/{SLUG}/logs/exports/new/"],
    "playground": [f"/o/{SLUG}/playground/"],
    "keys": [f"/o/{SLUG}/keys/"],
    "key-create": [f"/o/{SLUG}/keys/create/"],
    "billing": [f"/o/{SLUG}/billing/"],
    "billing-budgets": [f"/o/{SLUG}/billing/budgets/"],
    "credit-order": [f"/o/{SLUG}/billing/credit/"],
    "redeem-code": [f"/o/{SLUG}/billing/code/"],
    "plan-order": [f"/o/{SLUG}/billing/plan/?plan=pro"],
    "billing-details": [f"/o/{SLUG}/billing/details/"],
    "papers": [f"/o/{SLUG}/billing/invoices/"],
    "members": [f"/o/{SLUG}/members/"],
    "invite": [f"/o/{SLUG}/members/invite/"],
    "leave": [f"/o/{SLUG}/members/leave/"],
    "audit": [f"/o/{SLUG}/audit/", f"/o/{SLUG}/audit/?area=export"],
    "organization-settings": [f"/o/{SLUG}/settings/"],
    "organization-delete": [f"/o/{SLUG}/settings/delete/"],
    "ownership-transfer": [f"/o/{SLUG}/settings/transfer/"],
    "organization-create": ["/organizations/create/"],
    "profile": ["/settings/"],
    "account-delete": ["/settings/delete/"],
    "account_logout": ["/accounts/logout/"],
    "account_email": ["/accounts/email/"],
    "account_set_password": ["/accounts/password/change/"],
    "mfa_index": ["/accounts/2fa/"],
    "mfa_activate_totp": ["/accounts/2fa/totp/activate/"],
    "mfa_generate_recovery_codes": ["/accounts/2fa/recovery-codes/generate/"],
    "mfa_list_webauthn": ["/accounts/2fa/webauthn/"],
    "mfa_add_webauthn": ["/accounts/2fa/webauthn/add/"],
    "usersessions_list": ["/accounts/sessions/"],
    "socialaccount_connections": ["/accounts/3rdparty/", "/accounts/github/login/?process=connect"],
}

# Pages with an id in their address -> the page that links to them, and the pattern of the link.
LINKED = {
    "request": (f"/o/{SLUG}/logs/?range=14d", r"/logs/[0-9a-f-]{36}/"),
    "export": (f"/o/{SLUG}/logs/exports/", r"/logs/exports/[0-9a-f-]{36}/"),
    "key": (f"/o/{SLUG}/keys/", r"/keys/[0-9a-f-]{36}/"),
    "order": (f"/o/{SLUG}/billing/", r"/billing/orders/[A-Z0-9]+/"),
    "paper": (f"/o/{SLUG}/billing/invoices/", r"/billing/invoices/CFX-[0-9-]+/"),
    "statement": (f"/o/{SLUG}/billing/invoices/", r"/billing/statements/[0-9-]+/"),
    "member-role": (f"/o/{SLUG}/members/", r"/members/\d+/role/"),
    "member-remove": (f"/o/{SLUG}/members/", r"/members/\d+/remove/"),
    "invitation": (f"/o/{SLUG}/members/", r"/invitations/[^/\"]+/"),
}

# Pages below these: the parent, and the rest of the address.
BELOW = {
    "paper-ubl": ("paper", "ubl/"),
    "key-edit": ("key", "edit/"),
    "key-rotate": ("key", "rotate/"),
    "key-revoke": ("key", "revoke/"),
}

# Excluded: responses without HTML, mails that differ from run to run, and pages that need a stored prompt.
EXCLUDED = {"api-schema", "paper-csv", "paper-pdf", "statement-csv", "doctor-script", "dev-mail", "request-content"}


def linked(page: Page, name: str) -> str:
    """Find the address of such a page by its link. Leaves the browser on the linking page."""
    if name in BELOW:
        above, rest = BELOW[name]
        return linked(page, above) + rest
    where, pattern = LINKED[name]
    origin = re.match(r"https?://[^/]+", page.url)
    assert origin
    page.goto(f"{origin[0]}{where}")
    prefix = "" if name == "invitation" else f"/o/{SLUG}"
    found = re.search(f"{prefix}{pattern}", page.content())
    assert found, f"{name}: no link on {where}"
    return found[0]
