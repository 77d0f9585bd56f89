"""The page of an organization's money."""

from django.http import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing import selectors
from billing.models import LedgerEntry
from billing.services import limits_of
from codexflow.lib.clock import now

PAGE = 25


@organization_page(Action.SEE_BILLING)
@require_safe
def billing(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Plan, balance, this month and the ledger. Billing days and months are UTC's, and the page says so."""
    text = request.GET.get("before", "")
    before = int(text) if text.isdecimal() and len(text) < 19 else None
    entries = selectors.ledger_of(tenant.organization, before=before, limit=PAGE + 1)
    ledger = {"entries": entries[:PAGE], "older": entries[PAGE - 1].pk if len(entries) > PAGE else None}
    if request.htmx and not request.htmx.history_restore_request:
        return render(request, "billing/billing.html#ledger_rows", ledger)
    account = selectors.account_of(tenant.organization)
    today = now().date()
    balance = selectors.balance_of(account)
    return render(
        request,
        "billing/billing.html",
        {
            "account": account,
            "plan": account.plan,
            "limits": limits_of(account),
            "balance": balance,
            "used_percent": _percent(balance.spent_nanos, balance.credit_nanos),
            "month": selectors.spend_of(tenant.organization, today.replace(day=1), today),
            "month_start": today.replace(day=1),
            "today": selectors.spend_of(tenant.organization, today, today),
            "is_first_page": before is None,
            "settle": LedgerEntry.Kind.SETTLE,
            **ledger,
        },
    )


def _percent(part: int, whole: int) -> int:
    return min(100, part * 100 // whole) if whole > 0 else 0
