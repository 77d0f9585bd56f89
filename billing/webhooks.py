"""Webhook of payment providers. Without a configured provider of that name there is none."""

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

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
