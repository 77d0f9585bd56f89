"""Celery tasks of keys. Each fetches its own work; none carries data."""

from celery import shared_task

from codexflow.lib.clock import now
from keys import budget_alerts
from keys.money.idempotency import forget_calls


@shared_task
def send_budget_alerts() -> str:
    """Mail people whose budgets or credit are nearly used up."""
    return f"reported {budget_alerts.send_alerts()}"


@shared_task
def forget_idempotent_calls() -> str:
    """Delete answers of the management API that are no longer given again."""
    return f"forgot {forget_calls(now())}"
