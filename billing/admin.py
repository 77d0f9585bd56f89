"""Admin pages of plans, accounts and the ledger."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from accounts.audited_admin import AuditedAdmin
from accounts.models import Organization
from billing.models import Account, CreditSource, LedgerAudit, LedgerEntry, Plan
from codexflow.lib.admin import ReadOnlyAdmin, site
from codexflow.lib.money import format_usd


@admin.register(Plan, site=site)
class PlanAdmin(AuditedAdmin):
    """Plans. A change applies from now on; past charges stay."""

    list_display = (
        "name",
        "slug",
        "price",
        "credit",
        "daily_requests",
        "rpm",
        "tpm",
        "concurrent_streams",
        "is_public",
    )
    ordering = ("position", "slug")

    @admin.display(description=_("price a month (USD)"))
    def price(self, plan: Plan) -> str:
        return format_usd(plan.price_month_nanos, decimals=2)

    @admin.display(description=_("included credit (USD)"))
    def credit(self, plan: Plan) -> str:
        return format_usd(plan.included_credit_nanos, decimals=2)


@admin.register(Account, site=site)
class AccountAdmin(AuditedAdmin):
    """Accounts. Plan and budgets are editable; credit and spent are sums of the ledger."""

    list_display = ("organization", "plan", "credit", "spent", "opened_at")
    list_filter = ("plan",)
    list_select_related = ("organization", "plan")
    search_fields = ("organization__name", "organization__slug")
    fields = (
        "organization",
        "plan",
        "credit",
        "spent",
        "budget_day_nanos",
        "budget_month_nanos",
        "charges_direct_traffic",
        "opened_at",
    )
    readonly_fields = ("organization", "credit", "spent", "opened_at")
    ordering = ("-opened_at",)

    @admin.display(description=_("credit (USD)"))
    def credit(self, account: Account) -> str:
        return format_usd(account.credit_nanos)

    @admin.display(description=_("spent (USD)"))
    def spent(self, account: Account) -> str:
        return format_usd(account.spent_nanos)

    @override
    def organization_of(self, obj: Any) -> Organization | None:
        return obj.organization if isinstance(obj, Account) else None

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(LedgerEntry, site=site)
class LedgerEntryAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "organization", "kind", "amount", "request_id", "revision", "reference", "note")
    list_filter = ("kind",)
    list_select_related = ("organization",)
    search_fields = ("=request_id", "organization__slug", "reference")
    ordering = ("-pk",)

    @admin.display(description=_("amount (USD)"))
    def amount(self, entry: LedgerEntry) -> str:
        return format_usd(entry.amount_nanos, decimals=9)


@admin.register(CreditSource, site=site)
class CreditSourceAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "organization", "kind", "name", "granted", "remaining", "expires_at")
    list_filter = ("kind",)
    list_select_related = ("organization",)
    search_fields = ("organization__slug", "name")
    ordering = ("-pk",)

    @admin.display(description=_("granted (USD)"))
    def granted(self, source: CreditSource) -> str:
        return format_usd(source.granted_nanos, decimals=2)

    @admin.display(description=_("remaining (USD)"))
    def remaining(self, source: CreditSource) -> str:
        return format_usd(source.remaining_nanos, decimals=6)


@admin.register(LedgerAudit, site=site)
class LedgerAuditAdmin(ReadOnlyAdmin):
    list_display = ("ran_at", "findings")
    ordering = ("-ran_at",)
