"""Pages of an organization's webhooks."""

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.audit import acting
from accounts.models import WebhookDelivery, WebhookEndpoint
from accounts.permissions import Action
from accounts.reauthentication import recently_authenticated
from accounts.tenancy import PageRequest, Tenant, organization_page
from accounts.webhooks import services
from accounts.webhooks.forms import EndpointForm

LISTED = 100


@organization_page(Action.MANAGE_WEBHOOKS, section="team")
@require_safe
def webhooks(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """The organization's webhooks."""
    rows = WebhookEndpoint.objects.filter(organization=tenant.organization).order_by("created_at")
    return render(request, "accounts/webhooks.html", {"endpoints": rows})


@organization_page(Action.MANAGE_WEBHOOKS, section="team")
@recently_authenticated
@require_http_methods(["GET", "POST"])
@never_cache
def webhook_new(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Add a webhook and show its secret, in this response only."""
    form = EndpointForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            endpoint, secret = services.add_endpoint(
                tenant.organization, url=form.cleaned_data["url"], events=form.cleaned_data["events"], **acting(request)
            )
        except services.WebhookRefused as refused:
            form.add_error(None, str(refused))
        else:
            return render(request, "accounts/webhook_secret.html", {"endpoint": endpoint, "secret": secret})
    context = {"form": form, "endpoint": None}
    return render(request, "accounts/webhook_edit.html", context, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_WEBHOOKS, section="team")
@require_safe
def webhook(request: PageRequest, tenant: Tenant, endpoint_id: UUID) -> HttpResponseBase:
    """One webhook and its deliveries, newest first."""
    endpoint = _endpoint(tenant, endpoint_id)
    deliveries = endpoint.deliveries.order_by("-pk")[:LISTED]
    return render(request, "accounts/webhook.html", {"endpoint": endpoint, "deliveries": deliveries})


@organization_page(Action.MANAGE_WEBHOOKS, section="team")
@require_http_methods(["GET", "POST"])
def webhook_edit(request: PageRequest, tenant: Tenant, endpoint_id: UUID) -> HttpResponseBase:
    """Change address and events of a webhook, or switch it off and on."""
    endpoint = _endpoint(tenant, endpoint_id)
    form = EndpointForm(request.POST or None, endpoint=endpoint)
    if request.method == "POST" and form.is_valid():
        services.change_endpoint(endpoint, **form.cleaned_data, **acting(request))
        messages.success(request, _("Webhook saved."))
        return redirect("webhook", slug=tenant.organization.slug, endpoint_id=endpoint_id)
    context = {"form": form, "endpoint": endpoint}
    return render(request, "accounts/webhook_edit.html", context, status=422 if form.errors else 200)


@organization_page(Action.MANAGE_WEBHOOKS, section="team")
@recently_authenticated
@require_POST
@never_cache
def webhook_rotate(request: PageRequest, tenant: Tenant, endpoint_id: UUID) -> HttpResponseBase:
    """Rotate a webhook's secret and show the new one, in this response only."""
    endpoint = _endpoint(tenant, endpoint_id)
    secret = services.rotate_secret(endpoint, **acting(request))
    context = {"endpoint": endpoint, "secret": secret, "is_rotated": True}
    return render(request, "accounts/webhook_secret.html", context)


@organization_page(Action.MANAGE_WEBHOOKS, section="team")
@require_POST
def webhook_test(request: PageRequest, tenant: Tenant, endpoint_id: UUID) -> HttpResponseBase:
    """Send a test event."""
    services.send_test(_endpoint(tenant, endpoint_id))
    messages.success(request, _("The test event is on its way."))
    return redirect("webhook", slug=tenant.organization.slug, endpoint_id=endpoint_id)


@organization_page(Action.MANAGE_WEBHOOKS, section="team")
@require_POST
def webhook_replay(request: PageRequest, tenant: Tenant, endpoint_id: UUID, delivery_id: UUID) -> HttpResponseBase:
    """Send an event again."""
    own = WebhookDelivery.objects.filter(organization=tenant.organization, endpoint_id=endpoint_id)
    delivery = own.select_related("endpoint").filter(pk=delivery_id).first()
    if delivery is None:
        raise Http404
    services.replay(delivery)
    messages.success(request, _("Resending the event."))
    return redirect("webhook", slug=tenant.organization.slug, endpoint_id=endpoint_id)


@organization_page(Action.MANAGE_WEBHOOKS, section="team")
@require_POST
def webhook_remove(request: PageRequest, tenant: Tenant, endpoint_id: UUID) -> HttpResponseBase:
    """Remove a webhook with its deliveries."""
    services.remove_endpoint(_endpoint(tenant, endpoint_id), **acting(request))
    messages.success(request, _("Webhook removed."))
    return redirect("webhooks", slug=tenant.organization.slug)


def _endpoint(tenant: Tenant, endpoint_id: UUID) -> WebhookEndpoint:
    own = WebhookEndpoint.objects.select_related("organization").filter(organization=tenant.organization)
    found = own.filter(pk=endpoint_id).first()
    if found is None:
        raise Http404
    return found
