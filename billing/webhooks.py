"""Webhook of payment providers, and the way back from their pages. Without a configured provider there is none."""

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing.models import Order
from billing.payments.booking import confirm
from billing.payments.events import receive
from billing.payments.provider import NotGenuine, online_provider

# Largest of Stripe's events by far.
MAX_BYTES = 512 * 1024


@csrf_exempt
@require_POST
def payment_event(request: HttpRequest, provider_name: str) -> HttpResponse:
    """Store an event whose signature is right. The worker handles it; 200 says that it is stored.

    No session and no cookie has a part in it: the signature over the bytes of the body is all that counts.
    """
    provider = online_provider(provider_name)
    if provider is None:
        raise Http404
    if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_BYTES:
        return HttpResponse("The event is too large.\n", status=413, content_type="text/plain")
    try:
        event = provider.read_event(request.body, request.headers.get("Stripe-Signature", ""))
    except NotGenuine:
        return HttpResponse("The signature is missing, wrong, or too old.\n", status=400, content_type="text/plain")
    receive(provider, event)
    return HttpResponse("ok\n", content_type="text/plain")


@csrf_exempt
@require_POST
def checkout_return(request: HttpRequest, provider_name: str) -> HttpResponseBase:
    """Lead a customer back to their order from a provider that sends them by a cross-site POST.

    It comes without a session, because cookies are not sent with it, and without a CSRF token. Nothing of it is
    believed: it names the checkout, about which the provider is asked.
    """
    if online_provider(provider_name) is None:
        raise Http404
    token = request.POST.get("token", "")
    orders = Order.objects.select_related("organization").filter(provider=provider_name)
    order = orders.filter(checkout_id=token).first() if token else None
    if order is None:
        raise Http404
    confirm(order)
    response = redirect(f"{reverse('order', args=[order.organization.slug, order.code])}?checkout=done")
    response.status_code = 303
    return response
