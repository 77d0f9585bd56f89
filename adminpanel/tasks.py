"""Celery tasks of the operators' area."""

from celery import shared_task

from adminpanel.checks import check_and_record
from codexflow.lib.clock import now


@shared_task
def check_health() -> str:
    """Check every part of the installation, and note since when what is not well."""
    bad = [line.key for line in check_and_record(now()) if line.level != "ok"]
    return f"not well: {', '.join(bad)}" if bad else "all well"
