"""Inbox of the events that payment providers send: stored when they arrive, handled by the worker, again if it fails.

An event is done only after it was handled, so that one whose handling failed is not taken for a duplicate.
"""

import logging
from datetime import datetime, timedelta

from django.db import transaction

from accounts import audit
from accounts.models import User
from billing.models import PaymentEvent
from billing.payments.booking import PaymentRefused, apply
from billing.payments.provider import (
    OnlineProvider,
    ProviderRefused,
    ProviderUnavailable,
    ReceivedEvent,
    online_provider,
)
from codexflow.lib.clock import now
from codexflow.lib.db import only_one

logger = logging.getLogger(__name__)

FIRST_RETRY, LAST_RETRY = timedelta(seconds=30), timedelta(hours=1)
# Some three days, as long as providers repeat theirs.
MAX_ATTEMPTS = 80
BATCH = 20
ADVISORY_LOCK = 0x70617965  # "paye"; any number that nothing else locks


def receive(provider: OnlineProvider, event: ReceivedEvent) -> bool:
    """Store an event whose signature is right. Returns False for one that is there, or that does not matter here."""
    if not provider.is_followed(event.type):
        return False
    failure = "foreign_account" if event.is_foreign else "livemode" if event.is_live != provider.is_live else ""
    _stored, is_new = PaymentEvent.objects.get_or_create(
        provider=provider.name,
        event_id=event.event_id,
        defaults={
            "type": event.type,
            "object_id": event.object_id,
            "state": PaymentEvent.State.FAILED if failure else PaymentEvent.State.RECEIVED,
            "outcome": failure,
            "handled_at": now() if failure else None,
        },
    )
    return is_new


def handle_due(at: datetime) -> int:
    """Handle the events that are due, each in transactions of its own. Returns how many are done or failed.

    Where the provider does not respond, the rest waits for the next time: a worker must not wait for each of them.
    """
    due = PaymentEvent.objects.filter(state=PaymentEvent.State.RECEIVED, due_at__lte=at).order_by("due_at")
    handled = 0
    with only_one(ADVISORY_LOCK) as is_mine:
        for event in due[:BATCH] if is_mine else ():
            state = _handle(event, at)
            handled += state != PaymentEvent.State.RECEIVED
            if state == PaymentEvent.State.RECEIVED:
                break
    return handled


def _handle(event: PaymentEvent, at: datetime) -> PaymentEvent.State:
    """Handle one event and return its new state. It is due later before it is begun, should this worker die."""
    event.attempts += 1
    PaymentEvent.objects.filter(pk=event.pk).update(attempts=event.attempts, due_at=at + retry_after(event.attempts))
    state, outcome = _outcome(event)
    if state == PaymentEvent.State.RECEIVED and event.attempts >= MAX_ATTEMPTS:
        state = PaymentEvent.State.FAILED
    if state == PaymentEvent.State.FAILED:
        logger.warning("payments.event_refused", extra={"event": event.event_id, "reason": outcome})
    handled_at = None if state == PaymentEvent.State.RECEIVED else now()
    PaymentEvent.objects.filter(pk=event.pk).update(state=state, outcome=outcome[:40], handled_at=handled_at)
    return state


def _outcome(event: PaymentEvent) -> tuple[PaymentEvent.State, str]:
    provider = online_provider(event.provider)
    if provider is None:
        return PaymentEvent.State.FAILED, "provider_not_configured"
    try:
        return PaymentEvent.State.DONE, apply(provider.look_up(event.type, event.object_id), provider)
    except (PaymentRefused, ProviderRefused) as exc:
        return PaymentEvent.State.FAILED, exc.code
    except ProviderUnavailable:
        return PaymentEvent.State.RECEIVED, "provider_unavailable"
    except Exception:  # whatever it is, the event stays
        logger.exception("payments.event_failed", extra={"event": event.event_id})
        return PaymentEvent.State.RECEIVED, "error"


def count_waiting(at: datetime) -> int:
    """Return how many events wait for another attempt."""
    return PaymentEvent.objects.filter(state=PaymentEvent.State.RECEIVED, due_at__gt=at).count()


def count_failed(at: datetime) -> int:
    """Return how many events have failed within a day."""
    return PaymentEvent.objects.filter(state=PaymentEvent.State.FAILED, handled_at__gt=at - timedelta(days=1)).count()


def retry_after(attempts: int) -> timedelta:
    """Return how long after its beginning this attempt is followed by the next."""
    return min(FIRST_RETRY * int(2 ** min(attempts - 1, 10)), LAST_RETRY)


def retry(event: PaymentEvent, *, actor: User | None, address: str | None = None) -> bool:
    """Let the worker handle a failed event again, in one transaction with the audit entry. False: it has not failed."""
    with transaction.atomic():
        failed = PaymentEvent.objects.filter(pk=event.pk, state=PaymentEvent.State.FAILED)
        if not failed.update(state=PaymentEvent.State.RECEIVED, attempts=0, due_at=now(), handled_at=None):
            return False
        audit.record(
            "payment_event.retried",
            event,
            organization=None,
            actor=actor,
            address=address,
            event=event.event_id,
            reason=event.outcome,
        )
    return True
