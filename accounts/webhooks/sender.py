"""Delivery of webhooks by a worker: claim what is due, send it, note how that went.

What is claimed is due again a minute later, so a worker that dies leaves it to the next one: an event may arrive twice,
with the same id, and is never lost. Requests run on threads that know no database.
"""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction

from accounts import audit, mail
from accounts.models import Membership, WebhookDelivery, WebhookEndpoint
from accounts.permissions import Action, roles_that_may
from accounts.webhooks.messages import DISABLED_AFTER, GONE, is_success, signature_headers, wait_after
from accounts.webhooks.services import secrets_of
from codexflow.lib.addresses import site_url
from codexflow.lib.clock import now, now_s
from codexflow.lib.db import only_one
from codexflow.lib.outbound import AddressRefused, NoAnswer, post

logger = logging.getLogger(__name__)

LEASE = timedelta(minutes=1)
# One run sends so many at once and lasts as long as the slowest of them; only one worker at a time is in it, so that
# slow receivers keep no other work waiting.
BATCH, LOOKED_AT = 16, 400
# Of one endpoint in one run: a slow one does not keep the others waiting.
AT_ONCE = 4
ADVISORY_LOCK = 0x686F6F6B  # "hook"; any number that nothing else locks
SHOWN_CHARS = 1_000
KEPT = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, without the database."""

    delivery_id: UUID
    url: str
    body: bytes
    headers: dict[str, str]
    allows_loopback: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """Status of the response, or 0 and why there was none."""

    delivery_id: UUID
    status: int
    error: str = ""
    answer: str = ""


def deliver_due() -> int:
    """Send what is due. Returns the number of tries; 0 while another worker is at it."""
    with only_one(ADVISORY_LOCK) as is_mine:
        calls = _claim(now()) if is_mine else []
        if calls:
            with ThreadPoolExecutor(BATCH, thread_name_prefix="webhooks") as threads:
                for outcome in threads.map(_send, calls):
                    _note(outcome)
    return len(calls)


def _claim(at: datetime) -> list[Call]:
    with transaction.atomic():
        due = WebhookDelivery.objects.filter(
            state=WebhookDelivery.State.PENDING, due_at__lte=at, endpoint__is_active=True
        )
        rows = due.select_for_update(skip_locked=True, of=("self",)).select_related("endpoint").order_by("due_at")
        claimed: list[WebhookDelivery] = []
        of_endpoint = Counter[UUID]()
        for row in rows[:LOOKED_AT]:
            if len(claimed) < BATCH and of_endpoint[row.endpoint_id] < AT_ONCE:
                of_endpoint[row.endpoint_id] += 1
                row.due_at, row.tries, row.tried_at = at + LEASE, row.tries + 1, at
                claimed.append(row)
        WebhookDelivery.objects.bulk_update(claimed, ["due_at", "tries", "tried_at"])
    return [_call(row) for row in claimed]


def _call(row: WebhookDelivery) -> Call:
    body = row.body.encode()
    return Call(
        row.pk,
        row.endpoint.url,
        body,
        {
            "content-type": "application/json",
            "user-agent": "CodexFlow-Webhooks/1",
            **signature_headers(row.message_id, int(now_s()), body, secrets_of(row.endpoint)),
        },
        settings.ENV.hooks_allow_loopback,
    )


def _send(call: Call) -> Outcome:
    try:
        answer = post(call.url, call.body, call.headers, allows_loopback=call.allows_loopback)
    except AddressRefused:
        return Outcome(call.delivery_id, 0, "address_refused")
    except NoAnswer as exc:
        return Outcome(call.delivery_id, 0, exc.reason)
    # PostgreSQL stores no NUL.
    return Outcome(call.delivery_id, answer.status, answer=answer.text[:SHOWN_CHARS].replace("\0", ""))


def _note(outcome: Outcome) -> None:
    at, was_disabled = now(), False
    with transaction.atomic():
        row = WebhookDelivery.objects.filter(pk=outcome.delivery_id).first()
        if row is None:
            return  # its endpoint was removed meanwhile
        # The endpoint first, so that two of its deliveries do not wait for each other crosswise.
        endpoint = WebhookEndpoint.objects.select_for_update().select_related("organization").get(pk=row.endpoint_id)
        row.status, row.error, row.answer = outcome.status, outcome.error, outcome.answer
        if is_success(outcome.status):
            row.state, endpoint.failing_since = WebhookDelivery.State.DELIVERED, None
        else:
            wait = wait_after(row.tries)
            if wait is None:
                row.state = WebhookDelivery.State.FAILED
            else:
                row.due_at = at + wait
            endpoint.failing_since = endpoint.failing_since or at
            if outcome.status == GONE or at - endpoint.failing_since >= DISABLED_AFTER:
                was_disabled = endpoint.is_active
                endpoint.is_active, endpoint.disabled_at = False, at
        row.save(update_fields=["status", "error", "answer", "state", "due_at"])
        endpoint.save(update_fields=["failing_since", "is_active", "disabled_at"])
        if was_disabled:
            endpoint.deliveries.filter(state=WebhookDelivery.State.PENDING).update(state=WebhookDelivery.State.FAILED)
            audit.record(
                "webhook.disabled", endpoint, organization=endpoint.organization, actor_label="system", url=endpoint.url
            )
    if was_disabled:
        logger.warning("webhooks.disabled", extra={"endpoint": str(endpoint.pk)})
        _tell_people(endpoint)


def _tell_people(endpoint: WebhookEndpoint) -> None:
    if settings.ENV.mail is None and settings.ENV.is_production:
        return
    organization = endpoint.organization
    roles = roles_that_may(Action.MANAGE_WEBHOOKS)
    members = Membership.objects.filter(organization=organization, role__in=roles).select_related("user")
    for person in {each.user for each in members}:
        if person.is_active and person.email:
            mail.send(
                "webhook_disabled",
                person.email,
                language=person.language,
                organization=organization.name,
                webhook=endpoint.url,
                url=f"{site_url(settings.ENV)}/o/{organization.slug}/settings/webhooks/",
            )


def forget_deliveries(at: datetime) -> int:
    """Delete deliveries that nobody looks at any more. Returns how many."""
    deleted, _ = WebhookDelivery.objects.filter(created_at__lt=at - KEPT).delete()
    return deleted
