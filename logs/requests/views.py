"""Pages of requests: the request log and one request."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_POST, require_safe

from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.labels import PRICE_CLASSES, SOURCES
from billing.models import LedgerEntry
from billing.selectors import ledger_of_request, retention_days_of
from codexflow.catalogue.schema import ALL_STAGES
from codexflow.lib.addresses import api_url
from codexflow.lib.clock import now
from codexflow.lib.ids import parse_id
from keys.models import ApiKey
from logs.content.store import content_of, has_content
from logs.models import NO_KEY
from logs.refusals.selectors import shown_refusals
from logs.requests import reasons, stage_feedback
from logs.requests.curl import curl_of
from logs.requests.forms import DEFAULT_RANGE, filter_form
from logs.requests.search import Found, find_requests
from logs.requests.selectors import RequestDetail, request_of, with_key_names
from logs.requests.waterfall import bars

PAGE = 50


@organization_page(section="log")
@require_safe
def log(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """The request log. Filters, page and open request are all in the URL."""
    organization = tenant.organization
    form = filter_form(tenant, request.GET)
    key_names = {UUID(pk): name for pk, name in form.keys}
    retention_days = retention_days_of(organization)
    older_than = parse_id(request.GET.get("before", ""))
    filters = form.filters(now(), retention_days=retention_days)
    # An invalid filter is left out; an invalid id matches nothing.
    found = Found([], None)
    if not form.errors.get("id"):
        found = find_requests(organization.pk, filters, before=older_than, limit=PAGE)
    chosen = form.chosen
    older = urlencode({**chosen, "before": str(found.next_before)}) if found.next_before else ""
    context: dict[str, Any] = {
        "form": form,
        "rows": with_key_names(found.rows, key_names),
        "older": older,
        "is_first_page": older_than is None,
        "query": urlencode(chosen),
        "has_filters": bool(set(chosen) - {"range"}),
        "range": chosen.get("range", DEFAULT_RANGE),
        "retention_days": retention_days,
        "is_live": request.GET.get("live") == "1",
        "placeholder_id": NO_KEY,
        "zone": timezone.get_current_timezone(),
    }
    if request.htmx and not request.htmx.history_restore_request:
        part = "rows" if older_than else "filtered"
        return render(request, f"logs/log.html#{part}", {**context, "is_fragment": True})
    context["refusals"] = shown_refusals(organization, now())
    opened_id = parse_id(request.GET.get("request", ""))
    opened = request_of(organization.pk, opened_id, retention_days=retention_days) if opened_id else None
    if opened is not None:
        context |= _detail_context(tenant, opened)
    return render(request, "logs/log.html", context)


@organization_page(section="log")
@require_safe
def detail(request: PageRequest, tenant: Tenant, request_id: UUID) -> HttpResponseBase:
    """One request: its attempts, tokens, price and ledger entries. In the drawer, or a page of its own."""
    found = request_of(tenant.organization.pk, request_id, retention_days=retention_days_of(tenant.organization))
    if found is None:
        raise Http404
    template = "logs/request.html#body" if request.htmx else "logs/request.html"
    return render(request, template, _detail_context(tenant, found))


@organization_page(Action.READ_CONTENT, section="log")
@require_safe
@cache_control(no_store=True)
def content(request: PageRequest, tenant: Tenant, request_id: UUID) -> HttpResponseBase:
    """Prompt and response of one request, while they are stored. In the drawer, or a page of its own."""
    found = request_of(tenant.organization.pk, request_id, retention_days=retention_days_of(tenant.organization))
    texts = content_of(tenant.organization, request_id) if found else None
    if texts is None:
        raise Http404
    context = {"texts": texts, "zone": timezone.get_current_timezone()}
    return render(request, "logs/content.html#body" if request.htmx else "logs/content.html", context)


@organization_page(Action.JUDGE_STAGES, section="log")
@require_POST
def stage_verdict(request: PageRequest, tenant: Tenant, request_id: UUID) -> HttpResponseBase:
    """Store the right stage of a request; choosing the stage it had deletes the verdict."""
    found = request_of(tenant.organization.pk, request_id, retention_days=retention_days_of(tenant.organization))
    right_stage = request.POST.get("right_stage", "")
    if found is None or right_stage not in ALL_STAGES:
        raise Http404
    verdict = stage_feedback.set_verdict(tenant.organization, found.row, right_stage=right_stage, by=request.user)
    if not request.htmx:
        return redirect("request", slug=tenant.organization.slug, request_id=request_id)
    return render(request, "logs/partials/_verdict.html", {**_stage_context(found), "verdict": verdict})


def _detail_context(tenant: Tenant, found: RequestDetail) -> dict[str, Any]:
    row = found.row
    key = ApiKey.objects.filter(organization=tenant.organization, pk=row.key_id).first() if row.key_id else None
    return {
        "zone": timezone.get_current_timezone(),
        "opened": row,
        "opened_key": key,
        "bars": bars(found.attempts, row.latency_ms),
        "charge": found.charge,
        "charge_lines": [(PRICE_CLASSES[line.kind], line) for line in found.charge.lines],
        "ledger": [(entry, _paid_from(entry)) for entry in ledger_of_request(tenant.organization, row.request_id)],
        **_stage_context(found),
        "verdict": stage_feedback.verdict_of(tenant.organization, row),
        "has_content": tenant.allows(Action.READ_CONTENT) and has_content(tenant.organization, row.request_id),
        "curl": curl_of(
            api_url=api_url(settings.ENV),
            surface=row.surface,
            model=row.requested_model or row.model,
            stage=row.stage,
            is_stream=row.is_stream,
        ),
    }


def _stage_context(found: RequestDetail) -> dict[str, Any]:
    row = found.row
    return {"opened": row, "reason": reasons.label_of(row.stage_reason), "all_stages": ALL_STAGES}


def _paid_from(entry: LedgerEntry) -> list[tuple[Promise, int]]:
    """Return what each source paid, if it was more than one."""
    parts = entry.parts_by_kind
    return [(SOURCES[kind], nanos) for kind, nanos in parts.items()] if len(parts) > 1 else []
