"""Celery tasks of keys. Each fetches its own work; none carries data."""

from celery import shared_task

from keys import budget_alerts


@shared_task
def send_budget_alerts() -> str:
    """Mail people whose budgets or credit are nearly used up."""
    return f"reported {budget_alerts.send_alerts()}"
