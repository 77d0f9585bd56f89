"""Pages of invoices, credit notes, statements and billing details."""

from datetime import date
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from accounts.audit import acting
from accounts.models import Organization
from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.models import Order, Paper
from billing.papers import selectors
from billing.papers.details import details_of, set_details
from billing.papers.documents import day, document_of, lines_table, statement_document, tax_label
from billing.papers.export import attachment, has_ubl, ubl_files
from billing.papers.files import LANGUAGES, ask_for_statement, file_of
from billing.papers.forms import DetailsForm, UblForm
from billing.papers.invoice import Line
from billing.papers.issue import preview_of, seller
from billing.papers.statement import final_at, month_of
from billing.papers.tables import paper_csv as csv_of
from billing.papers.tables import statement_csv as statement_csv_of
from codexflow.lib.clock import now
from codexflow.templatetags.show import money

PAGE = 25


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def details(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Billing details of the organization, for its invoices."""
    form = DetailsForm(request.POST or None, instance=details_of(tenant.organization))
    if request.method == "POST" and form.is_valid():
        set_details(tenant.organization, form.facts, **acting(request))
        messages.success(request, _("Billing details saved. They appear on the next invoice."))
        return redirect("papers", slug=tenant.organization.slug)
    template = "billing/details.html#body" if request.htmx else "billing/details.html"
    return render(request, template, {"form": form}, status=422 if form.errors else 200)


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def paper_list(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Invoices and credit notes, newest first."""
    text = request.GET.get("before", "")
    before = int(text) if text.isdecimal() and len(text) < 19 else None
    papers = selectors.papers_of(tenant.organization, before=before, limit=PAGE + 1)
    context = {
        "papers": [{"paper": each, "day": day(each.issued_at), "total": _signed_total(each)} for each in papers[:PAGE]],
        "older": papers[PAGE - 1].pk if len(papers) > PAGE else None,
        "is_first_page": before is None,
        "months": [
            {"name": f"{each:%Y-%m}", "month": each}
            for each in selectors.statement_months(tenant.organization, now().date())
        ],
        "details": details_of(tenant.organization),
        "is_issuing": seller() is not None,
    }
    return render(request, "billing/papers.html", context)


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def paper(request: PageRequest, tenant: Tenant, number: str) -> HttpResponseBase:
    """One invoice or credit note."""
    shown = _paper_or_404(tenant, number)
    context = {
        "paper": shown,
        "document": document_of(shown),
        "credit_notes": selectors.credit_notes_of(shown),
        "is_made": _made_file(tenant, paper=shown) is not None,
        "has_ubl": has_ubl(shown),
    }
    return render(request, f"billing/paper.html{'#pdf' if request.htmx else ''}", context)


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def paper_pdf(request: PageRequest, tenant: Tenant, number: str) -> HttpResponseBase:
    """The PDF in the reader's language; 404 while it is not made."""
    shown = _paper_or_404(tenant, number)
    content = _made_file(tenant, paper=shown)
    if content is None:
        raise Http404
    return attachment(content, "application/pdf", f"{shown.number}-{_language()}.pdf")


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def statement(request: PageRequest, tenant: Tenant, month: str) -> HttpResponseBase:
    """Statement of a month (UTC)."""
    first, at = _month_or_404(tenant, month), now()
    is_final = at >= final_at(first)
    if request.htmx:
        document = None
    else:
        shown = selectors.statement_of(tenant.organization, first)
        document = statement_document(shown, tenant.organization.name, is_final=is_final, at=at)
    file = file_of(tenant.organization, _language(), month=first)
    context = {
        "month": month,
        "document": document,
        "is_final": is_final,
        "is_asked": file is not None,
        "is_made": file is not None and bool(file.content),
    }
    return render(request, f"billing/statement.html{'#pdf' if request.htmx else ''}", context)


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def statement_csv(request: PageRequest, tenant: Tenant, month: str) -> HttpResponseBase:
    """Statement of a month as CSV, exact to the nano."""
    shown = selectors.statement_of(tenant.organization, _month_or_404(tenant, month))
    return attachment(statement_csv_of(shown), "text/csv; charset=utf-8", f"statement-{month}.csv")


@organization_page(Action.SEE_BILLING, section="billing")
@require_http_methods(["GET", "HEAD", "POST"])
def statement_pdf(request: PageRequest, tenant: Tenant, month: str) -> HttpResponseBase:
    """Ask for the PDF of a final statement, or download it in the reader's language once it is made."""
    first = _month_or_404(tenant, month)
    if request.method == "POST":
        if now() >= final_at(first):
            ask_for_statement(tenant.organization, first, _language())
        else:
            messages.error(request, _("A statement is printed once its month is closed, a day after its end."))
        return redirect("statement", slug=tenant.organization.slug, month=month)
    content = _made_file(tenant, month=first)
    if content is None:
        raise Http404
    return attachment(content, "application/pdf", f"statement-{month}-{_language()}.pdf")


def _month_or_404(tenant: Tenant, name: str) -> date:
    month = month_of(name)
    if month is None or month not in selectors.statement_months(tenant.organization, now().date()):
        raise Http404
    return month


def _language() -> str:
    return get_language() or LANGUAGES[0]


def _made_file(tenant: Tenant, **what: Any) -> bytes | None:
    found = file_of(tenant.organization, _language(), **what)
    return bytes(found.content) if found is not None and found.content else None


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def paper_csv(request: PageRequest, tenant: Tenant, number: str) -> HttpResponseBase:
    """An invoice or a credit note as CSV, a row a line."""
    shown = _paper_or_404(tenant, number)
    facts = (
        shown.number,
        shown.kind,
        f"{shown.issued_at:%Y-%m-%d}",
        shown.corrects.number if shown.corrects else "",
        shown.buyer["name"],
        shown.buyer["tax_id"],
    )
    lines = [Line.of(each) for each in shown.lines]
    content = csv_of(facts, lines, currency=shown.currency, rate_bp=shown.tax_rate_bp)
    return attachment(content, "text/csv; charset=utf-8", f"{shown.number}.csv")


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def paper_ubl(request: PageRequest, tenant: Tenant, number: str) -> HttpResponseBase:
    """An invoice of a seller in Türkiye as UBL-TR, at the exchange rate that is given; 422 where a rule is broken."""
    shown = _paper_or_404(tenant, number)
    form = UblForm(request.GET)
    if not has_ubl(shown):
        raise Http404
    problems: list[str] = []
    if form.is_valid():
        files, problems = ubl_files([shown], today=now().date(), **form.facts)
        if not problems:
            ((name, content),) = files.items()
            return attachment(content, "application/xml", name)
    context = {"paper": shown, "form": form, "problems": problems}
    return render(request, "billing/ubl.html", context, status=422 if request.GET else 200)


def on_sale(organization: Organization) -> dict[str, Any]:
    """Context of the forms that order something: the tax in the prices, and billing details that are missing."""
    rate_bp = settings.ENV.tax_rate_bp
    is_issuing = seller() is not None
    return {
        "tax": tax_label(rate_bp) if is_issuing and rate_bp else "",
        "lacks_details": is_issuing and details_of(organization) is None,
    }


def on_order(order: Order) -> dict[str, Any]:
    """Context of an order's page: its papers, or while it is open the preview of its invoice."""
    issuer = seller()
    is_previewed = issuer is not None and order.is_open
    return {
        "papers": selectors.papers_of_order(order.organization, order.pk),
        "preview": lines_table(preview_of(order), order.currency) if is_previewed else None,
        "lacks_details": is_previewed and details_of(order.organization) is None,
    }


def _paper_or_404(tenant: Tenant, number: str) -> Paper:
    found = selectors.paper_of(tenant.organization, number)
    if found is None:
        raise Http404
    return found


def _signed_total(paper: Paper) -> str:
    return money(paper.total_cents if paper.is_invoice else -paper.total_cents, paper.currency)
