"""Pages of tags: what was spent on each, and their budgets."""

from datetime import timedelta

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from accounts.audit import acting
from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing import selectors
from billing.budgets.forms import TagBudgetForm
from billing.papers.selectors import statement_months
from billing.papers.statement import month_after, month_of
from billing.plans import is_tag
from billing.services import TooManyTagBudgets, set_tag_budget
from codexflow.lib.clock import now

# Tags that a page shows; the statement's file has all.
SHOWN = 200


@organization_page(Action.SEE_BILLING, section="billing")
@require_safe
def tags(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Spend of a month (UTC) by tag, and the budgets of tags with what is used of them now."""
    organization, today = tenant.organization, now().date()
    months = statement_months(organization, today)
    wanted = month_of(request.GET.get("month", ""))
    month = wanted if wanted in months else months[0]
    spends = selectors.spend_by_tag(organization, month, month_after(month) - timedelta(days=1), limit=SHOWN + 1)
    context = {
        "month": month,
        "months": months[:24],
        "spends": spends[:SHOWN],
        "has_more": len(spends) > SHOWN,
        "budgets": selectors.watched_tags(selectors.tag_budgets_of(organization), today),
    }
    return render(request, "billing/tags.html", context)


@organization_page(Action.MANAGE_BILLING, section="billing")
@require_http_methods(["GET", "POST"])
def tag_budget(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Set the budgets of a tag, `?tag=` or another one; without amounts it has none."""
    asked = request.GET.get("tag", "")
    budget = selectors.tag_budgets_of(tenant.organization).filter(tag=asked).first() if is_tag(asked) else None
    form = TagBudgetForm(request.POST or None, budget=budget, tag=asked)
    if request.method == "POST" and form.is_valid():
        try:
            set_tag_budget(
                tenant.organization,
                form.cleaned_data["tag"],
                day_nanos=form.nanos("day_usd"),
                month_nanos=form.nanos("month_usd"),
                is_hard=form.cleaned_data["is_hard"],
                **acting(request),
            )
        except TooManyTagBudgets:
            form.add_error(None, _("1,000 tags have a budget already. Remove one first."))
        else:
            messages.success(request, _("Budgets saved."))
            return redirect("tags", slug=tenant.organization.slug)
    template = "billing/tag_budget.html#body" if request.htmx else "billing/tag_budget.html"
    return render(request, template, {"form": form, "budget": budget}, status=422 if form.errors else 200)
