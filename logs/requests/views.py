"""Pages of requests: the request log and one request."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_POST, require_safe

from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.labels import PART_KINDS, PRICE_CLASSES, SOURCES
from billing.models import LedgerEntry
from billing.selectors import account_shown, ledger_of_request, retention_days_of
from codexflow.catalogue.schema import ALL_STAGES
from codexflow.lib.addresses import api_url
from codexflow.lib.clock import now
from codexflow.lib.errors import default_message_of
from codexflow.lib.ids import parse_id
from codexflow.templatetags import show
from keys.models import ApiKey
from logs.content import replay
from logs.content.codec import Texts
from logs.content.shown import shown_turns
from logs.content.store import content_of, has_content
from logs.models import NO_KEY, RequestLog
from logs.refusals.advice import advice_on
from logs.refusals.selectors import refused_calls
from logs.requests import reasons, stage_feedback
from logs.requests.bars import drawn_timeline
from logs.requests.curl import MAX_BODY_BYTES, curl_of
from logs.requests.forms import DEFAULT_RANGE, SPAN, filter_form
from logs.requests.search import Found, find_requests
from logs.requests.selectors import Filters, RequestDetail, request_of, with_key_names
from logs.requests.suggestions import suggestions_for
from logs.requests.waterfall import bars as waterfall_of
from logs.saved_views.selectors import listed_views

PAGE = 50
MAX_TYPED = 200


@organization_page(section="log")
@require_safe
def log(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """The request log. Filters, page and open request are all in the URL."""
    organization = tenant.organization
    form = filter_form(tenant, request.GET)
    key_names = {UUID(pk): name for pk, name in form.keys}
    retention_days = account_shown(organization).plan.log_retention_days
    older_than = parse_id(request.GET.get("before", ""))
    filters = form.filters(now(), retention_days=retention_days)
    # A choice that does not exist is left out; a search that cannot be read matches nothing.
    found = Found([], None)
    if not form.problems:
        found = find_requests(organization.pk, filters, before=older_than, limit=PAGE)
    chosen = form.chosen
    older = urlencode({**chosen, "before": str(found.next_before)}) if found.next_before else ""
    context: dict[str, Any] = {
        "form": form,
        "rows": with_key_names(found.rows, key_names),
        "older": older,
        "is_first_page": older_than is None,
        "query": urlencode(chosen),
        "has_filters": bool(set(chosen) - {"range", *SPAN}),
        "range": chosen.get("range", DEFAULT_RANGE),
        "span": form.span,
        "query_without_span": urlencode({name: value for name, value in chosen.items() if name not in SPAN}),
        "retention_days": retention_days,
        "is_live": request.GET.get("live") == "1",
        "placeholder_id": NO_KEY,
        "zone": timezone.get_current_timezone(),
        # Refused calls have no row: who filters for them finds them there.
        "refused_calls": refused_calls(organization.pk, filters.start, filters.end),
        "saved_views": listed_views(tenant, request.user, urlencode(chosen)),
        "refused_query": _refused_query(chosen, filters),
    }
    is_part = request.htmx and not request.htmx.history_restore_request
    if not older_than and not form.problems and not filters.id_part:
        context["timeline"] = drawn_timeline(organization, filters, chosen, retention_days=retention_days)
    if is_part:
        part = "rows" if older_than else "filtered"
        return render(request, f"logs/log.html#{part}", {**context, "is_fragment": True})
    opened_id = parse_id(request.GET.get("request", ""))
    opened = request_of(organization.pk, opened_id, retention_days=retention_days) if opened_id else None
    if opened is not None:
        context |= detail_context(tenant, opened)
    return render(request, "logs/log.html", context)


@organization_page(section="log")
@require_safe
def suggestions(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Fields, or values of a field with their numbers of requests, that continue what is typed into the search bar."""
    form = filter_form(tenant, request.GET)
    filters = form.filters(now(), retention_days=retention_days_of(tenant.organization))
    found = suggestions_for(
        tenant.organization.pk,
        request.GET.get("field", "").lower(),
        request.GET.get("typed", "")[:MAX_TYPED],
        start=filters.start,
        end=filters.end,
        names=form.names,
    )
    return JsonResponse({"suggestions": [{"text": each.text, "note": each.note} for each in found]})


def _refused_query(chosen: dict[str, str], filters: Filters) -> str:
    """Query of the page of refused calls, with those of the filters that it has."""
    asked = {name: chosen.get(name, "") for name in ("range", *SPAN)}
    asked |= {"key": str(filters.key_id or ""), "code": filters.error_code}
    return urlencode({name: value for name, value in asked.items() if value})


@organization_page(section="log")
@require_safe
def detail(request: PageRequest, tenant: Tenant, request_id: UUID) -> HttpResponseBase:
    """One request: its attempts, tokens, price and ledger entries. In the drawer, or a page of its own."""
    found = request_of(tenant.organization.pk, request_id, retention_days=retention_days_of(tenant.organization))
    if found is None:
        raise Http404
    template = "logs/request.html#body" if request.htmx else "logs/request.html"
    return render(request, template, detail_context(tenant, found))


@organization_page(Action.READ_CONTENT, section="log")
@require_safe
@cache_control(no_store=True)
def content(request: PageRequest, tenant: Tenant, request_id: UUID) -> HttpResponseBase:
    """Prompt and response of one request, while they are stored. In the drawer, or a page of its own."""
    found = request_of(tenant.organization.pk, request_id, retention_days=retention_days_of(tenant.organization))
    texts = content_of(tenant.organization, request_id) if found else None
    if texts is None:
        raise Http404
    assert found is not None  # noqa: S101 - else there are no texts
    if request.htmx and request.GET.get("part") == "curl":
        return render(request, "logs/content.html#curl", {"curl": _kept_curl(found.row, texts)})
    context = {
        "texts": texts,
        "turns": shown_turns(texts.request, texts.response),
        "curl": _kept_curl(found.row, texts),
        "zone": timezone.get_current_timezone(),
    }
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


def detail_context(tenant: Tenant, found: RequestDetail) -> dict[str, Any]:
    """Context of a request's details, by what the tenant's role may see."""
    row = found.row
    key = ApiKey.objects.filter(organization=tenant.organization, pk=row.key_id).first() if row.key_id else None
    return {
        "zone": timezone.get_current_timezone(),
        "opened": row,
        "opened_key": key,
        "bars": waterfall_of(found.attempts, row.latency_ms),
        "charge": found.charge,
        "parts": [(PART_KINDS[part.kind], attempt, part) for attempt, part in found.parts],
        "receipt_places": show.receipt_places(_amounts(found)),
        "rate_places": show.price_places(line.rate_nanos for line in found.charge.lines),
        "charge_lines": [(PRICE_CLASSES[line.kind], line) for line in found.charge.lines],
        "advice": advice_on(row.error_code) if row.error_code else None,
        "sent_message": default_message_of(row.error_code) if row.error_code else "",
        "ledger": [(entry, _paid_from(entry)) for entry in ledger_of_request(tenant.organization, row.request_id)],
        **_stage_context(found),
        "verdict": stage_feedback.verdict_of(tenant.organization, row),
        "has_content": tenant.allows(Action.READ_CONTENT) and has_content(tenant.organization, row.request_id),
        "curl": _curl(row),
        "can_reopen": tenant.allows(Action.USE_PLAYGROUND) and row.surface in replay.SURFACES,
    }


def _kept_curl(row: RequestLog, texts: Texts) -> str:
    """Command with the stored body; empty where its end is missing or a shell would not take it."""
    if texts.is_request_cut or len(texts.request.encode()) > MAX_BODY_BYTES:
        return ""
    return _curl(row, body=texts.request)


def _curl(row: RequestLog, *, body: str = "") -> str:
    return curl_of(
        api_url=api_url(settings.ENV),
        surface=row.surface,
        model=row.requested_model or row.model,
        stage=row.stage,
        is_stream=row.is_stream,
        body=body,
    )


def _amounts(found: RequestDetail) -> Iterator[int]:
    """Amounts of a request's receipt."""
    charge = found.charge
    yield from (line.nanos for line in charge.lines)
    yield from (charge.margin_nanos, charge.rounding_nanos, found.row.cost_nanos, found.row.held_nanos)


def _stage_context(found: RequestDetail) -> dict[str, Any]:
    row = found.row
    return {"opened": row, "reason": reasons.label_of(row.stage_reason), "all_stages": ALL_STAGES}


def _paid_from(entry: LedgerEntry) -> list[tuple[Promise, int]]:
    """Return what each source paid, if it was more than one."""
    parts = entry.parts_by_kind
    return [(SOURCES[kind], nanos) for kind, nanos in parts.items()] if len(parts) > 1 else []
