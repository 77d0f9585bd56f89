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
    "docs-search": ["/docs/search/", "/docs/search/?q=limit", "/docs/search/?q=nobody-writes-this"],
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
    "overview": [f"/o/{SLUG}/", f"/o/{SLUG}/?range=90d&sort=name&time_sort=-p95"],
    "log": [
        f"/o/{SLUG}/logs/?range=14d",
        f"/o/{SLUG}/logs/?q=status%3A5xx+nofield%3A1",
        f"/o/{SLUG}/logs/?id=00000000",
    ],
    "refused": [f"/o/{SLUG}/logs/refused/", f"/o/{SLUG}/logs/refused/?code=insufficient_quota"],
    "exports": [f"/o/{SLUG}/logs/exports/"],
    "view-new": [f"/o/{SLUG}/logs/views/new/?status=errors"],
    "export-new": [f"/o/{SLUG}/logs/exports/new/"],
    "playground": [f"/o/{SLUG}/playground/"],
    "keys": [f"/o/{SLUG}/keys/"],
    "key-create": [f"/o/{SLUG}/keys/create/"],
    "billing": [f"/o/{SLUG}/billing/"],
    "billing-budgets": [f"/o/{SLUG}/billing/budgets/"],
    "webhooks": [f"/o/{SLUG}/settings/webhooks/"],
    "webhook-new": [f"/o/{SLUG}/settings/webhooks/new/"],
    "tags": [f"/o/{SLUG}/billing/tags/"],
    "budget-raises": [f"/o/{SLUG}/billing/raises/"],
    "budget-raise": [f"/o/{SLUG}/billing/raises/new/"],
    "tag-budget": [f"/o/{SLUG}/billing/tags/budget/?tag=team-search"],
    "credit-order": [f"/o/{SLUG}/billing/credit/"],
    "card": [f"/o/{SLUG}/billing/card/"],
    "recharge": [f"/o/{SLUG}/billing/recharge/"],
    "redeem-code": [f"/o/{SLUG}/billing/code/"],
    "plan-order": [f"/o/{SLUG}/billing/plan/?plan=pro"],
    "trial": [f"/o/{SLUG}/billing/trial/?plan=pro"],
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
    "ops": ["/ops/"],
    "ops-customers": ["/ops/customers/", "/ops/customers/?q=nobody"],
    "ops-catalogue": ["/ops/models/"],
    "ops-announcements": ["/ops/announcements/"],
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
    "webhook": (f"/o/{SLUG}/settings/webhooks/", r"/settings/webhooks/[0-9a-f-]{36}/"),
    "member-role": (f"/o/{SLUG}/members/", r"/members/\d+/role/"),
    "member-remove": (f"/o/{SLUG}/members/", r"/members/\d+/remove/"),
    "invitation": (f"/o/{SLUG}/members/", r"/invitations/[^/\"]+/"),
    "ops-customer": ("/ops/customers/", r"/ops/customers/[0-9a-f-]{36}/"),
    "ops-catalogue-version": ("/ops/models/", r"/ops/models/\d+/"),
}

# Pages below these: the parent, and the rest of the address.
BELOW = {
    "paper-ubl": ("paper", "ubl/"),
    "webhook-edit": ("webhook", "edit/"),
    "key-edit": ("key", "edit/"),
    "key-rotate": ("key", "rotate/"),
    "key-revoke": ("key", "revoke/"),
    "ops-suspend": ("ops-customer", "suspend/"),
    "ops-reactivate": ("ops-customer", "reactivate/"),
    "ops-view-as": ("ops-customer", "view/"),
}

# Pages that an action shows for a row of a table of operators: the table, and the action.
ACTIONS = {"/ops/logs/unmatchedreport/": "map_to_key", "/ops/billing/paper/": "export_ubl"}

# What Firefox opens in CI: forms, tables, charts, code, the log. With --whole it opens everything.
CUT = {"landing", "docs-page", "account_signup", "overview", "log", "playground", "keys", "billing", "profile"}
CUT |= {"request"}

# Excluded: responses without HTML, mails that differ from run to run, pages that need a stored prompt, and those of
# operators that a library makes or that show what other pages show.
EXCLUDED = {"api-schema", "paper-csv", "paper-pdf", "statement-csv", "doctor-script", "dev-mail", "request-content"}
EXCLUDED |= {
    "ops-tables",
    "ops-request",
    "ops-key-revoke",
    "ops-key-litellm",
    "usage-csv",
    "log-suggestions",
    "keys-named",
    "view-edit",
}
EXCLUDED |= {"robots", "sitemap", "docs-source", "docs-quickstart-source", "docs-reference-source", "llms", "llms-full"}


def linked(page: Page, name: str) -> str:
    """Find the address of such a page by its link. Leaves the browser on the linking page."""
    if name in BELOW:
        above, rest = BELOW[name]
        return linked(page, above) + rest
    where, pattern = LINKED[name]
    origin = re.match(r"https?://[^/]+", page.url)
    assert origin
    page.goto(f"{origin[0]}{where}")
    prefix = "" if name == "invitation" or name.startswith("ops-") else f"/o/{SLUG}"
    found = re.search(f"{prefix}{pattern}", page.content())
    assert found, f"{name}: no link on {where}"
    return found[0]
