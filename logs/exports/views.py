"""Pages of exports: request one, watch its progress, download it."""

from typing import Any
from uuid import UUID

from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.selectors import retention_days_of
from codexflow.lib.clock import now
from logs.errors import TooManyExports
from logs.exports import jobs
from logs.models import ExportJob
from logs.requests.forms import filter_form
from logs.requests.selectors import estimate_of

LISTED = 100


@organization_page(Action.EXPORT_USAGE, section="log")
@require_safe
def export_list(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """The organization's recent exports."""
    newest = ExportJob.objects.filter(organization=tenant.organization).order_by("-created_at")[:LISTED]
    rows = [_context_of(job) for job in newest.select_related("created_by")]
    context = {"rows": rows, "is_any_active": any(row["is_active"] for row in rows)}
    return render(request, f"logs/exports.html{'#table' if request.htmx else ''}", context)


@organization_page(Action.EXPORT_USAGE, section="log")
@require_http_methods(["GET", "POST"])
def export_new(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Show the filters and an estimate, then queue an export. The filters are those of the log."""
    organization = tenant.organization
    form = filter_form(tenant, request.POST or request.GET)
    filters = form.filters(now(), retention_days=retention_days_of(organization))
    error = " ".join(form.problems)
    if request.method == "POST" and not error:
        chosen = request.POST.get("format", "")
        try:
            job = jobs.request_export(
                organization,
                file_format=chosen if chosen in ExportJob.Format.values else ExportJob.Format.CSV,
                query=form.chosen,
                filters=filters,
                by=_requester(request),
            )
        except TooManyExports:
            error = _("You already have ten exports in progress. Wait for one to finish, or cancel one.")
        else:
            if not request.htmx:
                return redirect("exports", slug=organization.slug)
            return render(request, "logs/export.html#body", _context_of(job))
    context = {
        "chosen": form.sent,
        "named": form.named,
        "estimate": estimate_of(organization.pk, filters),
        "formats": ExportJob.Format.choices,
        "error": error,
    }
    template = "logs/export_new.html#body" if request.htmx else "logs/export_new.html"
    return render(request, template, context, status=422 if error and request.method == "POST" else 200)


@organization_page(Action.EXPORT_USAGE, section="log")
@require_safe
def export(request: PageRequest, tenant: Tenant, export_id: UUID) -> HttpResponseBase:
    """Progress of an export; the dialog polls it."""
    template = "logs/export.html#progress" if request.htmx else "logs/export.html"
    return render(request, template, _context_of(_job_or_404(tenant, export_id)))


@organization_page(Action.EXPORT_USAGE, section="log")
@require_POST
def export_cancel(request: PageRequest, tenant: Tenant, export_id: UUID) -> HttpResponseBase:
    """Cancel a waiting or running export."""
    job = jobs.cancel_export(_job_or_404(tenant, export_id), by=_requester(request))
    if request.htmx and request.htmx.target == "export-progress":
        return render(request, "logs/export.html#progress", _context_of(job))
    return redirect("exports", slug=tenant.organization.slug)


def _context_of(job: ExportJob) -> dict[str, Any]:
    return {
        "job": job,
        "percent": int(jobs.progress_of(job) * 100),
        "is_active": job.state in jobs.ACTIVE,
        "is_ready": job.state == ExportJob.State.DONE and (job.expires_at is None or job.expires_at > now()),
    }


def _job_or_404(tenant: Tenant, export_id: UUID) -> ExportJob:
    own = ExportJob.objects.select_related("organization", "created_by").filter(organization=tenant.organization)
    job = own.filter(pk=export_id).first()
    if job is None:
        raise Http404
    return job


def _requester(request: PageRequest) -> jobs.Requester:
    return jobs.Requester(user=request.user, responsible=request.user, address=request.META.get("REMOTE_ADDR") or None)
