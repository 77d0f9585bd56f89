"""Celery tasks of organizations. Each fetches its own work; none carries data."""

from celery import shared_task

from accounts.webhooks import sender
from codexflow.lib.clock import now


@shared_task
def deliver_webhooks() -> str:
    """Send the webhooks that are due."""
    return f"tried {sender.deliver_due()}"


@shared_task
def forget_webhooks() -> str:
    """Delete old deliveries of webhooks."""
    return f"forgot {sender.forget_deliveries(now())}"
