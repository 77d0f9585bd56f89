"""Retention of the request log: how far back a plan shows requests. Pure."""

from datetime import datetime, timedelta

FOREVER_DAYS = 36_500


def kept_since(now: datetime, retention_days: int) -> datetime:
    """First moment that a plan shows. Some operators write a million days for ever; calendars have fewer."""
    return now - timedelta(days=min(retention_days, FOREVER_DAYS))
