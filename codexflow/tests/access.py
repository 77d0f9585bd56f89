"""Access rules: one line per route, read by test_matrix.py.

A new route fails there by name until it has a line here. A line holds the statuses of a bare request
(GET, or POST of an empty form); a method without a status must be refused to everybody.
"""

from dataclasses import dataclass

ROLES = ("viewer", "billing", "developer", "admin", "owner")
# A stranger belongs to another organization; an operator is a super administrator of the site and belongs to none.
EVERYBODY = ("anonymous", "stranger", *ROLES, "operator")

SIGN_IN = 1  # a redirect to the sign-in page
CLOSED = 0  # refused, not found, no such method, or the sign-in page

Statuses = dict[str, int]


@dataclass(frozen=True, slots=True)
class Access:
    """Expected status by method and kind of user."""

    methods: dict[str, Statuses]
    query: str = ""

    def of(self, method: str, person: str) -> int:
        return self.methods.get(method, {}).get(person, CLOSED)


ALL = " ".join(ROLES)
MANAGERS = "admin owner"
DEVELOPERS = "developer admin owner"
OWNER = "owner"
PAYERS = "billing admin owner"
SEE_BILLING = "billing developer admin owner"


def _tenant(allowed: str, status: int) -> Statuses:
    outside = {"anonymous": SIGN_IN, "stranger": 404, "operator": 404}
    return outside | {role: status if role in allowed.split() else 403 for role in ROLES}


def tenant(allowed: str, **methods: int) -> Access:
    """A page of an organization: strangers and operators 404, members with another role 403."""
    return Access({method: _tenant(allowed, status) for method, status in methods.items()})


def personal(**methods: int) -> Access:
    """Page of the user's own account: all signed-in users."""
    return Access({m: dict.fromkeys(EVERYBODY, status) | {"anonymous": SIGN_IN} for m, status in methods.items()})


def public(**methods: int) -> Access:
    """Public page: the same status for everybody."""
    return Access({method: dict.fromkeys(EVERYBODY, status) for method, status in methods.items()})


def entrance(get: int, post: int = 200) -> Access:
    """Sign-in page: for visitors; signed-in users are redirected."""
    return Access({m: dict.fromkeys(EVERYBODY, 302) | {"anonymous": s} for m, s in {"get": get, "post": post}.items()})


def signing_out() -> Access:
    """Sign-out page: a confirmation for signed-in users; visitors are redirected."""
    return Access({m: dict.fromkeys(EVERYBODY, s) | {"anonymous": 302} for m, s in {"get": 200, "post": 302}.items()})


def api(**methods: tuple[str, int]) -> Access:
    """The management API with a session: visitors 401, strangers and operators 404, members with another role 403."""
    outside = {"anonymous": 401, "stranger": 404, "operator": 404}
    found = {}
    for method, (allowed, status) in methods.items():
        found[method] = outside | {role: status if role in allowed.split() else 403 for role in ROLES}
    return Access(found, query="?organization=analytical-engines")


def operators(**methods: int) -> Access:
    """API of super administrators: 404 for all other users, members of any organization included."""
    others = dict.fromkeys(EVERYBODY, 404) | {"anonymous": 401}
    return Access({m: others | {"operator": status} for m, status in methods.items()})


def operators_area(**methods: int) -> Access:
    """Page of operators: visitors sign in, all other users get 404."""
    others = dict.fromkeys(EVERYBODY, 404) | {"anonymous": SIGN_IN}
    return Access({m: others | {"operator": status} for m, status in methods.items()})


EXPECTED: dict[str, Access] = {
    # The management API
    "api-schema": public(get=200),
    "api-keys": api(get=(ALL, 200), post=(DEVELOPERS, 400)),
    "api-key": api(get=(ALL, 200), patch=(DEVELOPERS, 200), delete=(DEVELOPERS, 200)),
    "api-key-rotate": api(post=(DEVELOPERS, 400)),
    "api-budgets": api(get=(SEE_BILLING, 200), put=(PAYERS, 400)),
    "api-tag-budgets": api(get=(SEE_BILLING, 200), put=(PAYERS, 400)),
    "api-budget-raises": api(get=(SEE_BILLING, 200), post=(PAYERS, 400)),
    "api-budget-raise": api(delete=(PAYERS, 200)),
    "api-balance": api(get=(SEE_BILLING, 200)),
    "api-ledger": api(get=(SEE_BILLING, 200)),
    "api-orders": api(get=(SEE_BILLING, 200), post=(PAYERS, 400)),
    "api-order": api(get=(SEE_BILLING, 200), delete=(PAYERS, 200)),
    "api-invoices": api(get=(SEE_BILLING, 200)),
    "api-invoice": api(get=(SEE_BILLING, 200)),
    # Keys of operators only, never a session.
    "api-operator-grants": public(post=401),
    "api-operator-adjustments": public(post=401),
    "api-operator-payments": public(post=401),
    "api-operator-refunds": public(post=401),
    "api-tags": api(get=(SEE_BILLING, 200)),
    "api-requests": api(get=(ALL, 200)),
    "api-request": api(get=(ALL, 200)),
    "api-request-content": api(get=(DEVELOPERS, 200)),
    "api-usage": api(get=(ALL, 200)),
    "api-refusals": api(get=(ALL, 200)),
    "api-exports": api(get=(DEVELOPERS, 200), post=(DEVELOPERS, 400)),
    "api-export": api(get=(DEVELOPERS, 200), delete=(DEVELOPERS, 204)),
    "api-export-cancel": api(post=(DEVELOPERS, 200)),
    "api-export-download": api(get=(DEVELOPERS, 409)),
    "api-leaked-keys": public(post=400),  # the key itself is what authenticates
    "api-reconciliation": operators(get=200),
    "api-margin": operators(get=200),
    # Public pages
    "landing": public(get=200),
    "pricing": public(get=200),
    "docs": public(get=200),
    "docs-page": public(get=200),
    "docs-source": public(get=200),
    "docs-quickstart-source": public(get=200),
    "docs-reference-source": public(get=200),
    "docs-search": public(get=200),
    "llms": public(get=200),
    "llms-full": public(get=200),
    "docs-reference": public(get=200),
    "doctor": public(get=200),
    "doctor-script": public(get=200),
    "status": public(get=200),
    "robots": public(get=200),
    "sitemap": public(get=200),
    "terms": public(get=200),
    "privacy": public(get=200),
    "invitation": public(get=200, post=200),
    "language": public(post=302),
    "theme": public(post=302),
    "iyzico-event": public(post=404),
    "iyzico-return": public(post=404),
    "payment-event": public(post=404),  # no provider with a webhook is configured
    "dev-mail": public(get=200, post=200),
    "dev-components": public(get=200),
    # The operators' pages
    "ops": operators_area(get=200),
    "ops-tables": operators_area(get=200),
    "ops-customers": operators_area(get=200, post=302),
    "ops-customer": operators_area(get=200),
    "ops-suspend": operators_area(get=200, post=422),
    "ops-reactivate": operators_area(get=200, post=422),
    "ops-view-as": operators_area(get=200, post=422),
    "ops-view-end": operators_area(post=302),
    "ops-key-revoke": operators_area(get=200, post=302),
    "ops-key-litellm": operators_area(get=200, post=302),
    "ops-request": operators_area(get=200),
    "ops-catalogue": operators_area(get=200, post=422),
    "ops-catalogue-version": operators_area(get=200),
    "ops-catalogue-rollback": operators_area(post=302),
    "ops-announcements": operators_area(get=200, post=422),
    "ops-announcement-end": operators_area(post=302),
    # The user's own account
    "home": personal(get=302, post=302),
    "profile": personal(get=200, post=422),
    "account-export": personal(post=200),
    "account-delete": personal(get=200, post=422),
    "organization-create": personal(get=200, post=422),
    # An organization
    "overview": tenant(ALL, get=200),
    "usage-csv": tenant(ALL, get=200),
    "log": tenant(ALL, get=200),
    "log-suggestions": tenant(ALL, get=200),
    "refused": tenant(ALL, get=200),
    "view-new": tenant(ALL, get=200, post=422),
    "view-edit": tenant(MANAGERS, get=200, post=422),  # another member's, which is shared
    "view-delete": tenant(MANAGERS, post=302),
    "request": tenant(ALL, get=200),
    "request-content": tenant(DEVELOPERS, get=200),
    "request-stage": tenant(DEVELOPERS, post=404),  # without a stage there is nothing to judge
    "exports": tenant(DEVELOPERS, get=200),
    "export-new": tenant(DEVELOPERS, get=200, post=302),
    "export": tenant(DEVELOPERS, get=200),
    "export-cancel": tenant(DEVELOPERS, post=302),
    "playground": tenant(DEVELOPERS, get=200),
    "playground-code": tenant(DEVELOPERS, post=422),
    "keys": tenant(ALL, get=200),
    "keys-named": tenant(ALL, get=200),
    "key-create": tenant(DEVELOPERS, get=200, post=422),
    "key": tenant(ALL, get=200),
    "key-edit": tenant(DEVELOPERS, get=200, post=422),
    "key-rotate": tenant(DEVELOPERS, get=200, post=422),
    "key-revoke": tenant(DEVELOPERS, get=200, post=302),
    "billing": tenant(SEE_BILLING, get=200),
    # No provider that saves cards is configured.
    "card": tenant(PAYERS, get=404, post=404),
    "card-remove": tenant(PAYERS, post=404),
    "card-renewals": tenant(PAYERS, post=404),
    "recharge": tenant(PAYERS, get=404, post=404),
    "recharge-off": tenant(PAYERS, post=404),
    "plan-renewal": tenant(PAYERS, post=302),
    "billing-budgets": tenant(PAYERS, get=200, post=302),
    "webhooks": tenant(MANAGERS, get=200),
    "webhook-new": tenant(MANAGERS, get=200, post=422),
    "webhook": tenant(MANAGERS, get=200),
    "webhook-edit": tenant(MANAGERS, get=200, post=422),
    "webhook-rotate": tenant(MANAGERS, post=200),
    "webhook-test": tenant(MANAGERS, post=302),
    "webhook-replay": tenant(MANAGERS, post=302),
    "webhook-remove": tenant(MANAGERS, post=302),
    "tags": tenant(SEE_BILLING, get=200),
    "budget-raises": tenant(SEE_BILLING, get=200),
    "budget-raise": tenant(PAYERS, get=200, post=422),
    "budget-raise-end": tenant(PAYERS, post=302),
    "tag-budget": tenant(PAYERS, get=200, post=422),
    "credit-order": tenant(PAYERS, get=200, post=422),
    "redeem-code": tenant(PAYERS, get=200, post=422),
    "trial": tenant(PAYERS, get=404, post=404),  # no plan has one
    "plan-order": tenant(PAYERS, get=200, post=422),
    "order": tenant(SEE_BILLING, get=200),
    "billing-details": tenant(PAYERS, get=200, post=422),
    "papers": tenant(SEE_BILLING, get=200),
    "paper": tenant(SEE_BILLING, get=200),
    "paper-csv": tenant(SEE_BILLING, get=200),
    "paper-pdf": tenant(SEE_BILLING, get=200),
    "paper-ubl": tenant(SEE_BILLING, get=200),
    "statement": tenant(SEE_BILLING, get=200),
    "statement-csv": tenant(SEE_BILLING, get=200),
    "statement-pdf": tenant(SEE_BILLING, get=404, post=302),  # there is none of the present month
    "order-cancel": tenant(PAYERS, post=302),
    "order-pay": tenant(PAYERS, post=404),  # a bank transfer has no checkout
    "members": tenant(ALL, get=200),
    "invite": tenant(MANAGERS, get=200, post=422),
    "leave": tenant(ALL, get=200, post=302),
    "member-role": tenant(MANAGERS, get=200, post=422),
    "member-remove": tenant(MANAGERS, get=200, post=302),
    "invitation-resend": tenant(MANAGERS, post=302),
    "invitation-withdraw": tenant(MANAGERS, post=302),
    "audit": tenant(MANAGERS, get=200),
    "organization-settings": tenant(OWNER, get=200, post=422),
    "organization-content": tenant(OWNER, post=422),
    "organization-delete": tenant(OWNER, get=200, post=422),
    "ownership-transfer": tenant(OWNER, get=200, post=422),
    # Sign-in and its settings (allauth). The test's users have no password to reauthenticate with: 403.
    "account_login": entrance(200),
    "account_signup": entrance(200),
    "account_logout": signing_out(),
    "account_inactive": public(get=200),
    "account_reauthenticate": personal(get=403, post=403),
    "account_email": personal(get=200, post=302),
    "account_email_verification_sent": public(get=200),
    "account_change_password": personal(get=302, post=302),
    "account_set_password": personal(get=200, post=200),
    "account_reset_password": public(get=200, post=200),
    "account_confirm_login_code": public(get=302, post=302),
    "account_confirm_email": public(get=200, post=404),
    "account_confirm_password_reset_code": public(get=302, post=302),
    "account_complete_password_reset": public(get=302, post=302),
    "account_password_reset_completed": public(get=200),
    "mfa_index": personal(get=200),
    "mfa_authenticate": public(get=302, post=302),
    "mfa_reauthenticate": personal(get=403, post=403),
    "mfa_activate_totp": personal(get=200, post=200),
    "mfa_deactivate_totp": personal(get=404, post=404),
    "mfa_view_recovery_codes": personal(get=404),
    "mfa_generate_recovery_codes": personal(get=200, post=200),
    "mfa_download_recovery_codes": personal(get=404),
    "mfa_list_webauthn": personal(get=200),
    "mfa_add_webauthn": personal(get=200, post=200),
    "mfa_reauthenticate_webauthn": personal(get=403, post=403),
    "mfa_remove_webauthn": personal(get=404, post=404),
    "mfa_edit_webauthn": personal(get=404, post=404),
    "mfa_login_webauthn": public(get=302, post=302),
    "usersessions_list": personal(get=200, post=302),
    # Signing in by a provider: POST leads there, and what comes back without our state is refused.
    "github_login": public(get=200, post=302),
    "github_callback": public(get=401, post=401),
    "google_login": public(get=200, post=302),
    "google_callback": public(get=401, post=401),
    "socialaccount_login_cancelled": public(get=200),
    "socialaccount_connections": personal(get=200, post=200),
}
