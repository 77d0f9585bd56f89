"""Admin pages of plans, accounts and the ledger."""

import csv
from collections.abc import Callable, Mapping
from typing import Any, cast

from django.contrib import admin, messages
from django.db import IntegrityError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.html import format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from typing_extensions import override

from accounts.audit import acting
from accounts.audited_admin import AuditedAdmin
from accounts.models import Organization, User
from billing.approvals import ApprovalRefused, approve, book_or_ask, refund_or_ask, reject
from billing.codes import make_codes
from billing.forms import (
    BOOKED_ALREADY,
    AccountEditForm,
    BookingForm,
    CreditCodeForm,
    PaymentForm,
    PlanEditForm,
    RefundForm,
)
from billing.models import (
    Account,
    BillingDetails,
    BookingApproval,
    CardCharge,
    CreditCode,
    CreditSource,
    LedgerAudit,
    LedgerEntry,
    Order,
    Paper,
    PaymentEvent,
    Plan,
    PlanPeriod,
    Refund,
)
from billing.papers.documents import lines_table, sums_of_paper
from billing.papers.export import attachment, ubl_files, zipped
from billing.papers.forms import CreditNoteForm, UblForm
from billing.papers.issue import CreditNoteRefused, credited_of, issue_credit_note
from billing.papers.tables import decimals
from billing.payments.booking import stop_checkout
from billing.payments.events import retry
from billing.payments.orders import OrderRefused, refuse_unless_open, settle_order
from billing.payments.refunds import RefundRefused, refundable_nanos
from billing.plan_versions import keep_terms
from billing.revenue import debts, revenue_by_month
from billing.subscriptions import give_plan
from codexflow.lib.admin import ReadOnlyAdmin, site, usd_column
from codexflow.lib.clock import now
from codexflow.lib.money import format_usd, parse_usd
from codexflow.lib.spreadsheets import escape_formulas


@admin.register(Plan, site=site)
class PlanAdmin(AuditedAdmin):
    """Plans. A change is a new version: past charges and what is paid for stay as they were."""

    form = PlanEditForm
    derived_fields = ("version",)

    list_display = (
        "name",
        "slug",
        "version",
        "price",
        "credit",
        "daily_requests",
        "rpm",
        "tpm",
        "concurrent_streams",
        "is_public",
    )
    ordering = ("position", "-version")

    @override
    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Earlier versions are what was sold."""
        return super().has_change_permission(request, obj) and (obj is None or obj.current_id is None)

    @override
    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change and (kept := keep_terms(obj, now())) is not None:
            text = _("Those who have paid keep version %(version)s until their month ends.")
            messages.info(request, text % {"version": kept.version})
        super().save_model(request, obj, form, change)

    @admin.display(description=_("price a month (USD)"))
    def price(self, plan: Plan) -> str:
        return usd_column(plan.price_month_nanos, 2)

    @admin.display(description=_("included credit (USD)"))
    def credit(self, plan: Plan) -> str:
        return usd_column(plan.included_credit_nanos, 2)


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
        "plan_ends_at",
        "credit",
        "spent",
        "budget_day_nanos",
        "budget_month_nanos",
        "charges_direct_traffic",
        "opened_at",
    )
    readonly_fields = ("organization", "credit", "spent", "opened_at")
    form = AccountEditForm
    ordering = ("-opened_at",)

    @override
    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        accounts: QuerySet[Account] = super().get_queryset(request)
        return accounts.select_related("organization")  # the account is named after it

    @admin.display(description=_("credit (USD)"))
    def credit(self, account: Account) -> str:
        return usd_column(account.credit_nanos)

    @admin.display(description=_("spent (USD)"))
    def spent(self, account: Account) -> str:
        return usd_column(account.spent_nanos)

    @override
    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Give a plan without the end of the one before, unless an end is set as well."""
        if "plan" in form.changed_data and "plan_ends_at" not in form.changed_data:
            obj.plan_ends_at = None
        if {"plan", "plan_ends_at"} & set(form.changed_data):
            give_plan(obj, obj.plan, obj.plan_ends_at, now())
        super().save_model(request, obj, form, change)

    @override
    def organization_of(self, obj: Any) -> Organization | None:
        return obj.organization if isinstance(obj, Account) else None

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(CardCharge, site=site)
class CardChargeAdmin(ReadOnlyAdmin):
    """Charges of saved cards. One that was not made although money moved has to be given back at the provider."""

    list_display = ("started_at", "organization", "order", "number", "state", "code", "ended_at")
    list_filter = ("state",)
    list_select_related = ("organization", "order")
    search_fields = ("organization__slug", "=order__code")
    ordering = ("-pk",)


@admin.register(PlanPeriod, site=site)
class PlanPeriodAdmin(ReadOnlyAdmin):
    list_display = ("organization", "plan", "begins_at", "ends_at", "has_begun", "order")
    list_filter = ("plan",)
    list_select_related = ("organization", "plan", "order")
    search_fields = ("organization__slug", "=order__code")
    ordering = ("-pk",)


@admin.register(LedgerEntry, site=site)
class LedgerEntryAdmin(ReadOnlyAdmin):
    """The ledger. A super administrator adds payments, promotions and adjustments; nothing is ever changed."""

    list_display = ("created_at", "organization", "kind", "amount", "request_id", "revision", "reference", "note")
    list_filter = ("kind",)
    list_select_related = ("organization",)
    search_fields = ("=request_id", "organization__slug", "reference")
    ordering = ("-pk",)

    @admin.display(description=_("amount (USD)"))
    def amount(self, entry: LedgerEntry) -> str:
        return usd_column(entry.amount_nanos, 9)

    @admin.display(description=_("held (USD)"))
    def held(self, entry: LedgerEntry) -> str:
        return usd_column(entry.held_nanos, 9)

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return isinstance(request.user, User) and request.user.has_perm("billing.add_ledgerentry")

    @override
    def get_readonly_fields(self, request: HttpRequest, obj: LedgerEntry | None = None) -> Any:
        return () if obj is None else ("amount", "held", "created_at")

    @override
    def get_form(
        self, request: HttpRequest, obj: LedgerEntry | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        return BookingForm if obj is None else super().get_form(request, obj, change, **kwargs)

    @override
    def get_fieldsets(self, request: HttpRequest, obj: LedgerEntry | None = None) -> Any:
        if obj is not None:
            facts = ("created_at", "organization", "kind", "amount", "held", "request_id", "revision", "key_id", "tag")
            return ((None, {"fields": (*facts, "day", "reference", "note")}),)
        names = ("organization", "kind", "amount_usd", "reference", "note", "expires_at", "is_confirmed", "key")
        return ((None, {"fields": names}),)

    @override
    def add_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Book, once: of two at once, one is told so."""
        try:
            return cast(HttpResponse, super().add_view(request, *args, **kwargs))
        except IntegrityError:
            messages.error(request, BOOKED_ALREADY)
            return redirect(request.path)

    @override
    def save_model(self, request: HttpRequest, obj: LedgerEntry, form: Any, change: bool) -> None:
        facts = form.cleaned_data
        booked = book_or_ask(
            facts["organization"],
            form.nanos,
            kind=LedgerEntry.Kind(facts["kind"]),
            reason=facts["note"],
            reference=form.reference_booked,
            expires_at=facts["expires_at"],
            **acting(request),
        )
        if isinstance(booked, LedgerEntry):
            obj.pk = booked.pk
            obj.refresh_from_db()

    @override
    def response_add(self, request: HttpRequest, obj: LedgerEntry, post_url_continue: str | None = None) -> Any:
        if obj.pk is not None:
            return super().response_add(request, obj, post_url_continue)
        messages.warning(request, _("It waits until another operator approves it."))
        return redirect("admin:billing_bookingapproval_changelist")

    @override
    def log_addition(self, request: HttpRequest, obj: LedgerEntry, message: Any) -> None:
        """Write none of Django's own: the audit log has it."""


@admin.register(CreditSource, site=site)
class CreditSourceAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "organization", "kind", "name", "granted", "remaining", "expires_at")
    list_filter = ("kind",)
    list_select_related = ("organization",)
    search_fields = ("organization__slug", "name")
    ordering = ("-pk",)

    @admin.display(description=_("granted (USD)"))
    def granted(self, source: CreditSource) -> str:
        return usd_column(source.granted_nanos, 2)

    @admin.display(description=_("remaining (USD)"))
    def remaining(self, source: CreditSource) -> str:
        return usd_column(source.remaining_nanos, 6)


@admin.register(Order, site=site)
class OrderAdmin(ReadOnlyAdmin):
    """Orders, below the revenue of the last months. A super administrator records the payment of an open one, once.

    On the page of a paid one they ask for refunds.
    """

    list_before_template = "billing/ops/revenue.html"
    list_display = ("code", "organization", "kind", "plan", "amount", "state", "created_at", "settled_at")
    list_filter = ("state", "kind", "provider")
    list_select_related = ("organization", "plan")
    search_fields = ("=code", "organization__slug", "=payment_reference")
    ordering = ("-pk",)
    readonly_fields = (
        "code",
        "organization",
        "kind",
        "plan",
        "amount",
        "credit",
        "provider",
        "state",
        "created_by",
        "created_at",
        "settled_at",
        "payment",
        "ledger_entry",
        "refunded",
        "disputed",
    )

    @admin.display(description=_("amount (USD)"))
    def amount(self, order: Order) -> str:
        return usd_column(order.amount_nanos, 2)

    @admin.display(description=_("credit (USD)"))
    def credit(self, order: Order) -> str:
        return usd_column(order.credit_nanos, 2)

    @admin.display(description=_("refunded (USD)"))
    def refunded(self, order: Order) -> str:
        return usd_column(order.refunded_nanos, 2)

    @admin.display(description=_("disputed (USD)"))
    def disputed(self, order: Order) -> str:
        return usd_column(order.disputed_nanos, 2)

    @admin.display(description=_("payment"))
    def payment(self, order: Order) -> str:
        return order.payment_reference or "-"

    @override
    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        may_record = isinstance(request.user, User) and request.user.has_perm("billing.change_order")
        return may_record and (obj is None or obj.is_open or refundable_nanos(obj) > 0)

    @override
    def get_form(self, request: HttpRequest, obj: Order | None = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None and self.has_change_permission(request, obj):
            return PaymentForm if obj.is_open else RefundForm
        return super().get_form(request, obj, change, **kwargs)

    @override
    def get_fieldsets(self, request: HttpRequest, obj: Order | None = None) -> Any:
        facts = (None, {"fields": self.readonly_fields})
        if not self.has_change_permission(request, obj):
            return (facts,)
        if obj is None or obj.is_open:
            return (facts, (_("Record the payment"), {"fields": ("payment_reference", "reason", "is_confirmed")}))
        return (facts, (_("Refund"), {"fields": ("amount_usd", "reason", "reference", "is_confirmed", "key")}))

    @override
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        facts = {"revenue": revenue_by_month(now()), "debts": debts()}
        response: HttpResponse = super().changelist_view(request, {**(extra_context or {}), **facts})
        return response

    @override
    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show the order, or record its payment; one that is not open any more is told so."""
        order = self.get_object(request, object_id)
        try:
            is_payment = request.method == "POST" and "amount_usd" not in request.POST
            if order is not None and is_payment and self.has_change_permission(request):
                refuse_unless_open(order)
                if "is_confirmed" in request.POST:
                    stop_checkout(order)  # nobody pays at the provider what is paid already
            return cast(HttpResponse, super().change_view(request, object_id, *args, **kwargs))
        except (OrderRefused, RefundRefused) as refused:
            messages.error(request, str(refused))
            return redirect(request.path)

    @override
    def save_model(self, request: HttpRequest, obj: Order, form: Any, change: bool) -> None:
        facts = form.cleaned_data
        if isinstance(form, RefundForm):
            given = {name: facts[name] for name in ("key", "reason", "reference")}
            if refund_or_ask(obj, form.nanos, **given, **acting(request)) is not None:
                messages.warning(request, _("It waits until another operator approves it."))
            return
        settle_order(obj, payment_reference=facts["payment_reference"], reason=facts["reason"], **acting(request))

    @override
    def log_change(self, request: HttpRequest, obj: Order, message: Any) -> None:
        """Write none of Django's own: the audit log has it."""


@admin.register(Refund, site=site)
class RefundAdmin(ReadOnlyAdmin):
    """Refunds, asked for on the pages of orders."""

    list_display = ("created_at", "order", "amount", "state", "reason", "reference", "error", "created_by")
    list_filter = ("state",)
    list_select_related = ("order", "created_by")
    search_fields = ("=order__code", "=reference")
    ordering = ("-pk",)

    @admin.display(description=_("amount (USD)"))
    def amount(self, refund: Refund) -> str:
        return usd_column(refund.amount_nanos, 2)


@admin.register(BookingApproval, site=site)
class BookingApprovalAdmin(ReadOnlyAdmin):
    """Bookings that wait for a second operator, and those that were decided."""

    list_display = ("asked_at", "organization", "kind", "amount", "order", "reason", "asked_by", "state", "decided_by")
    list_filter = ("state", "kind")
    list_select_related = ("organization", "order", "asked_by", "decided_by")
    ordering = ("-pk",)
    actions = ("approve_chosen", "reject_chosen")

    @admin.display(description=_("amount (USD)"))
    def amount(self, approval: BookingApproval) -> str:
        return usd_column(approval.amount_nanos, 9)

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return isinstance(request.user, User) and request.user.has_perm("billing.change_bookingapproval")

    @admin.action(description=_("Approve and book"), permissions=["decide"])
    def approve_chosen(self, request: HttpRequest, chosen: QuerySet[BookingApproval]) -> None:
        """Book the chosen ones."""
        self._decide(request, chosen, approve)

    @admin.action(description=_("Reject"), permissions=["decide"])
    def reject_chosen(self, request: HttpRequest, chosen: QuerySet[BookingApproval]) -> None:
        """Reject the chosen ones."""
        self._decide(request, chosen, reject)

    def _decide(
        self, request: HttpRequest, chosen: QuerySet[BookingApproval], verb: Callable[..., BookingApproval]
    ) -> None:
        for approval in chosen:
            try:
                verb(approval, **acting(request))
            except (ApprovalRefused, RefundRefused) as refused:
                messages.error(request, str(refused))
            else:
                messages.success(request, _("Decided."))


# What came of an event, in words; a provider's own words stay as they are.
OUTCOMES = {
    "settled": _("Credit was booked"),
    "reversed": _("Credit was taken back"),
    "gone": _("The provider does not know it any more"),
    "expired": _("The checkout has expired"),
    "unpaid": _("Not paid yet"),
    "foreign": _("Not of this installation"),
    "saved": _("A card was saved"),
    "unsaved": _("No card was saved"),
    "removed": _("A card was removed"),
    "updated": _("A card was brought up to date"),
    "unchanged": _("Nothing has changed"),
    "error": _("An error of ours; it is tried again"),
    "provider_unavailable": _("The provider did not respond; it is tried again"),
    "provider_not_configured": _("The provider is not set up here (CFX_PAYMENT_PROVIDERS)"),
    "livemode": _("A test payment for a live order, or the other way round"),
    "currency": _("Another currency than that of the order"),
    "amount": _("Another amount than that of the order"),
    "unknown_order": _("No order has this code"),
    "other_provider": _("The order is to be paid by another provider"),
    "order_cancelled": _("The order was cancelled"),
    "order_paid_already": _("The order is paid by another payment"),
    "payment_booked_already": _("The payment was booked by hand"),
    "signature": _("The provider's signature is wrong"),
    "unknown_dispute_state": _("A dispute in a state that is not known"),
}


@admin.register(PaymentEvent, site=site)
class PaymentEventAdmin(ReadOnlyAdmin):
    """Inbox of what payment providers have sent. Failed ones can be handled again."""

    list_display = ("received_at", "provider", "type", "object_id", "state", "what_came", "attempts", "handled_at")
    fields = ("received_at", "provider", "type", "event_id", "object_id", "state", "what_came", "outcome", "attempts")
    readonly_fields = ("received_at", "what_came")
    list_filter = ("state", "provider", "outcome")
    search_fields = ("=event_id", "=object_id")
    ordering = ("-pk",)
    actions = ("handle_again",)

    @admin.display(description=_("what came of it"), ordering="outcome")
    def what_came(self, event: PaymentEvent) -> str:
        return str(OUTCOMES.get(event.outcome, event.outcome))

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return isinstance(request.user, User) and request.user.has_perm("billing.change_paymentevent")

    @admin.action(description=_("Handle again what has failed"), permissions=["retry"])
    def handle_again(self, request: HttpRequest, chosen: QuerySet[PaymentEvent]) -> None:
        """Let the worker handle the failed ones of the chosen events again."""
        retried = sum(retry(event, **acting(request)) for event in chosen)
        text = ngettext("%(count)d event is handled again.", "%(count)d events are handled again.", retried)
        messages.success(request, text % {"count": retried})


@admin.register(LedgerAudit, site=site)
class LedgerAuditAdmin(ReadOnlyAdmin):
    list_display = ("ran_at", "findings")
    ordering = ("-ran_at",)


@admin.register(CreditCode, site=site)
class CreditCodeAdmin(AuditedAdmin):
    """Codes for credit and discounts. A new one, or a batch, is made by the form; a batch is downloaded as CSV."""

    list_display = ("code", "batch", "gives", "redemptions", "max_redemptions", "valid_until", "is_active")
    list_filter = ("is_active", "batch")
    search_fields = ("code", "batch")
    ordering = ("-pk",)
    actions = ("as_csv",)

    @admin.display(description=_("gives"))
    def gives(self, code: CreditCode) -> str:
        if code.percent_off:
            return _("%(percent)s%% off") % {"percent": code.percent_off}
        if code.off_nanos:
            return _("$%(amount)s off") % {"amount": usd_column(code.off_nanos, 2)}
        return _("$%(amount)s of credit") % {"amount": usd_column(code.credit_nanos, 2)}

    @override
    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return CreditCodeForm if obj is None else super().get_form(request, obj, change, **kwargs)

    @override
    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        gifts = ("credit_usd", "percent_off", "off_usd")
        new = ("code", *gifts, "count", "batch", "max_redemptions", "valid_until", "credit_days")
        # What a code gives never changes once it is out.
        return ((None, {"fields": new if obj is None else ("is_active", "valid_until", "max_redemptions", "batch")}),)

    @override
    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        facts = form.cleaned_data
        given: dict[str, Any] = {name: facts[name] for name in ("batch", "valid_until", "credit_days")}
        given["credit_nanos"] = parse_usd(facts["credit_usd"] or 0)
        given["percent_off"] = facts["percent_off"] or 0
        given["off_nanos"] = parse_usd(facts["off_usd"] or 0)
        if facts["code"]:
            given |= {"code": facts["code"], "max_redemptions": facts["max_redemptions"]}
        elif facts["max_redemptions"]:
            given["max_redemptions"] = facts["max_redemptions"]
        made = make_codes(facts["count"], **given)
        obj.pk = made[0].pk
        gifts = {name: given[name] for name in ("credit_nanos", "percent_off", "off_nanos") if given[name]}
        batch = {"batch": facts["batch"], "count": len(made), **gifts}
        self._record(request, obj, "created", **batch)

    @admin.action(description=_("Download as CSV"))
    def as_csv(self, request: HttpRequest, chosen: QuerySet[CreditCode]) -> HttpResponse:
        """Write the chosen codes with what they give."""
        response = HttpResponse(content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = 'attachment; filename="credit-codes.csv"'
        rows = csv.writer(response)
        gifts = ("credit_usd", "percent_off", "off_usd")
        rows.writerow(("code", "batch", *gifts, "valid_until", "redemptions", "max_redemptions"))
        for each in chosen.order_by("pk"):
            until = each.valid_until.isoformat() if each.valid_until else ""
            credit, off = (
                format_usd(nanos, decimals=2) if nanos else "" for nanos in (each.credit_nanos, each.off_nanos)
            )
            given = (credit, each.percent_off or "", off)
            rows.writerow(
                (
                    escape_formulas(each.code),
                    escape_formulas(each.batch),
                    *given,
                    until,
                    each.redemptions,
                    each.max_redemptions or "",
                )
            )
        return response


@admin.register(BillingDetails, site=site)
class BillingDetailsAdmin(ReadOnlyAdmin):
    list_display = ("organization", "legal_name", "country", "tax_id", "changed_at")
    list_select_related = ("organization",)
    search_fields = ("organization__slug", "legal_name", "=tax_id")
    ordering = ("-changed_at",)


@admin.register(Paper, site=site)
class PaperAdmin(ReadOnlyAdmin):
    """Invoices and credit notes. On the page of an invoice a super administrator issues a credit note for it."""

    list_display = ("number", "organization", "kind", "issued_at", "total", "currency", "corrects")
    list_filter = ("kind",)
    list_select_related = ("organization", "corrects")
    search_fields = ("=number", "organization__slug", "=order__code")
    ordering = ("-pk",)
    readonly_fields = (
        "number",
        "organization",
        "kind",
        "issued_at",
        "order",
        "corrects",
        "reason",
        "total",
        "currency",
        "seller_lines",
        "buyer_lines",
        "lines_shown",
    )
    actions = ("export_ubl",)

    @admin.display(description=_("seller"))
    def seller_lines(self, paper: Paper) -> str:
        return _lines_of(paper.seller)

    @admin.display(description=_("buyer"))
    def buyer_lines(self, paper: Paper) -> str:
        return _lines_of(paper.buyer)

    @admin.display(description=_("lines"))
    def lines_shown(self, paper: Paper) -> str:
        table = lines_table(sums_of_paper(paper), paper.currency)
        labels = [column.label for column in table.columns]
        texts = (" · ".join(f"{label}: {text}" for label, text in zip(labels, row, strict=True)) for row in table.rows)
        return format_html_join(mark_safe("<br>"), "{}", ((text,) for text in texts))

    @admin.action(description=_("Download as UBL-TR"), permissions=["view"])
    def export_ubl(self, request: HttpRequest, chosen: QuerySet[Paper]) -> HttpResponse | None:
        """XML of the chosen invoices for an integrator, in a ZIP: all or, with what is wrong, none."""
        form = UblForm(request.POST if "profile" in request.POST else QueryDict())
        if form.is_valid():
            files, problems = ubl_files(chosen, today=now().date(), **form.facts)
            if not problems:
                return attachment(zipped(files), "application/zip", "ubl-tr.zip")
            for problem in problems:
                messages.error(request, problem)
            return None
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": _("Download as UBL-TR"),
            "form": form,
            "chosen": chosen,
            "opts": self.model._meta,
        }
        return TemplateResponse(request, "billing/ops/export_ubl.html", context)

    @admin.display(description=_("total"))
    def total(self, paper: Paper) -> str:
        return decimals(paper.total_cents if paper.is_invoice else -paper.total_cents)

    @override
    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        may_issue = isinstance(request.user, User) and request.user.has_perm("billing.change_paper")
        return may_issue and (obj is None or (obj.is_invoice and credited_of(obj).total_cents < obj.total_cents))

    @override
    def get_form(self, request: HttpRequest, obj: Paper | None = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None and self.has_change_permission(request, obj):
            return CreditNoteForm
        return super().get_form(request, obj, change, **kwargs)

    @override
    def get_fieldsets(self, request: HttpRequest, obj: Paper | None = None) -> Any:
        facts = (None, {"fields": self.readonly_fields})
        if not self.has_change_permission(request, obj):
            return (facts,)
        names = ("amount", "credit_reason", "is_confirmed", "left_cents")
        return (facts, (_("Issue a credit note"), {"fields": names}))

    @override
    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show the paper, or issue the credit note; of two at once the second is told that too little is left."""
        try:
            return cast(HttpResponse, super().change_view(request, object_id, *args, **kwargs))
        except CreditNoteRefused as refused:
            messages.error(request, str(refused))
            return redirect(request.path)

    @override
    def save_model(self, request: HttpRequest, obj: Paper, form: Any, change: bool) -> None:
        facts = form.cleaned_data
        known = {"reason": facts["credit_reason"], "left_cents": facts["left_cents"]}
        issue_credit_note(obj, form.cents, **known, **acting(request))

    @override
    def log_change(self, request: HttpRequest, obj: Paper, message: Any) -> None:
        """Write none of Django's own: the audit log has it."""


def _lines_of(party: Mapping[str, Any]) -> str:
    """Facts of a seller or buyer as lines, the name first."""
    values = [party.get("name", ""), *(value for name, value in party.items() if name != "name")]
    return format_html_join(mark_safe("<br>"), "{}", ((str(value),) for value in values if value))
