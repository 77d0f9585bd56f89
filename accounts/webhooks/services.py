"""Verbs on webhooks: endpoints, and events that are told to them."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

import msgspec
from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.encryption import WEBHOOKS, decrypt, encrypt
from accounts.models import Organization, User, WebhookDelivery, WebhookEndpoint
from accounts.webhooks.messages import EVENTS, OVERLAP, SECRET_BYTES, TEST, secret_of
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id
from codexflow.lib.outbound import AddressRefused, target_of

MAX_ENDPOINTS = 10
# Events that may be reported more than once have an id that follows from what they say.
_NAMED = UUID("5f2f3c6e-2d0b-5d55-8f53-1d7c5a0a54b1")


class WebhookRefused(Exception):
    """An endpoint cannot be like this. The text is translated and meant for a page."""


def publish(organization: Organization, event: str, data: Mapping[str, Any], *, name: str = "") -> int:
    """Tell the organization's endpoints of an event, once the transaction has committed. Returns to how many.

    `data` has neither prompts nor secrets. An event with a `name` is told once to each endpoint, however often it is
    published.
    """
    endpoints = [
        each
        for each in WebhookEndpoint.objects.filter(organization=organization, is_active=True)
        if event in each.events
    ]
    if not endpoints:
        return 0
    message_id = _message_id(uuid5(_NAMED, f"{organization.pk} {event} {name}") if name else new_id())
    if name:
        told = set(
            WebhookDelivery.objects.filter(endpoint__in=endpoints, message_id=message_id).values_list(
                "endpoint_id", flat=True
            )
        )
        endpoints = [each for each in endpoints if each.pk not in told]
    body = _body(event, data)
    WebhookDelivery.objects.bulk_create([_delivery(each, message_id, event, body) for each in endpoints])
    return len(endpoints)


def _message_id(message: UUID) -> str:
    return f"msg_{message.hex}"


def _body(event: str, data: Mapping[str, Any]) -> str:
    timestamp = now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"type": event, "timestamp": timestamp, "data": dict(data)}).decode()


def _delivery(endpoint: WebhookEndpoint, message_id: str, event: str, body: str) -> WebhookDelivery:
    return WebhookDelivery(
        organization_id=endpoint.organization_id, endpoint=endpoint, message_id=message_id, event=event, body=body
    )


def check_url(url: str) -> None:
    """Raise WebhookRefused for an address that can never be told. Its name is resolved when it is."""
    try:
        target_of(url, allows_loopback=settings.ENV.hooks_allow_loopback)
    except AddressRefused:
        raise WebhookRefused(_("Enter an https:// address on the public internet, without credentials.")) from None


def add_endpoint(
    organization: Organization, *, url: str, events: Sequence[str], actor: User, address: str | None = None
) -> tuple[WebhookEndpoint, str]:
    """Add an endpoint, in one transaction with the audit entry. Its secret is returned once. Raises WebhookRefused."""
    check_url(url)
    secret = secret_of(secrets.token_bytes(SECRET_BYTES))
    with transaction.atomic():
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        if WebhookEndpoint.objects.filter(organization=organization).count() >= MAX_ENDPOINTS:
            raise WebhookRefused(_("You already have ten webhooks. Remove one first."))
        endpoint = WebhookEndpoint.objects.create(
            organization=organization,
            url=url,
            events=_known(events),
            sealed_secret=encrypt(secret, purpose=WEBHOOKS),
            created_by=actor,
        )
        _audit("webhook.created", endpoint, actor, address, url=url, events=endpoint.events)
    return endpoint, secret


def change_endpoint(
    endpoint: WebhookEndpoint,
    *,
    url: str,
    events: Sequence[str],
    is_active: bool,
    actor: User,
    address: str | None = None,
) -> WebhookEndpoint:
    """Change an endpoint, in one transaction with the audit entry. Raises WebhookRefused."""
    check_url(url)
    with transaction.atomic():
        endpoint = WebhookEndpoint.objects.select_for_update().select_related("organization").get(pk=endpoint.pk)
        if is_active and not endpoint.is_active:
            endpoint.failing_since = endpoint.disabled_at = None
        endpoint.url, endpoint.events, endpoint.is_active = url, _known(events), is_active
        endpoint.save()
        _audit("webhook.changed", endpoint, actor, address, url=url, events=endpoint.events, is_active=is_active)
    return endpoint


def rotate_secret(endpoint: WebhookEndpoint, *, actor: User, address: str | None = None) -> str:
    """Give an endpoint a new secret, which is returned once. For a day the old one signs as well."""
    secret = secret_of(secrets.token_bytes(SECRET_BYTES))
    with transaction.atomic():
        endpoint = WebhookEndpoint.objects.select_for_update().select_related("organization").get(pk=endpoint.pk)
        endpoint.sealed_secret_before, endpoint.secret_before_until = endpoint.sealed_secret, now() + OVERLAP
        endpoint.sealed_secret = encrypt(secret, purpose=WEBHOOKS)
        endpoint.save(update_fields=["sealed_secret", "sealed_secret_before", "secret_before_until"])
        _audit("webhook.rotated", endpoint, actor, address)
    return secret


def remove_endpoint(endpoint: WebhookEndpoint, *, actor: User, address: str | None = None) -> None:
    """Remove an endpoint with its deliveries, in one transaction with the audit entry."""
    with transaction.atomic():
        _audit("webhook.deleted", endpoint, actor, address, url=endpoint.url)
        endpoint.delete()


def send_test(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Tell an endpoint of a test event."""
    delivery = _delivery(endpoint, _message_id(new_id()), TEST, _body(TEST, {"text": "It works."}))
    delivery.save()
    return delivery


def replay(delivery: WebhookDelivery) -> WebhookDelivery:
    """Send an event again: with the same id and body, and a signature of then."""
    again = _delivery(delivery.endpoint, delivery.message_id, delivery.event, delivery.body)
    again.save()
    return again


def secrets_of(endpoint: WebhookEndpoint) -> list[str]:
    """Secrets that sign, the newest first."""
    sealed = [endpoint.sealed_secret]
    if endpoint.secret_before_until is not None and endpoint.secret_before_until > now():
        sealed.append(endpoint.sealed_secret_before)
    return [decrypt(each, purpose=WEBHOOKS) for each in sealed]


def _known(events: Sequence[str]) -> list[str]:
    return [each for each in EVENTS if each in events]


def _audit(action: str, endpoint: WebhookEndpoint, actor: User, address: str | None, **facts: Any) -> None:
    audit.record(action, endpoint, organization=endpoint.organization, actor=actor, address=address, **facts)
