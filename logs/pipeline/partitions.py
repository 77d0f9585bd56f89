"""Day partitions of request_log and upstream_attempt: made ahead, dropped when no plan shows them any longer.

Ledger and rollups are other tables and stay. A plan's shorter retention is applied on reading.
"""

import logging
from datetime import date

from django.db import OperationalError, connection, transaction
from django.db.models import Max

from billing.models import Plan
from codexflow.lib.clock import now
from logs.pipeline.retention import kept_since

logger = logging.getLogger(__name__)

DAYS_BACK = 35  # imports reach this far
DAYS_AHEAD = 7
# Making and dropping wait for readers of the whole log, and everybody behind waits, too: rather come back in an hour.
LOCK_TIMEOUT = "2s"
MOST_STRAYS = 1_000

_OLD_SQL = """
SELECT child.relname FROM pg_inherits
JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent
WHERE parent.relname IN ('request_log', 'upstream_attempt') AND child.relname ~ '_[0-9]{8}$'
  AND to_date(right(child.relname, 8), 'YYYYMMDD') < %s
ORDER BY right(child.relname, 8), child.relname
"""


def make_ahead() -> int:
    """Make the partitions that are missing around today, and move into them what DEFAULT has of their days.

    Idempotent; returns how many were made. While the log is read as a whole none is: there are days in hand.
    """
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            cursor.execute("SELECT cfx_make_partitions(current_date - %s, current_date + %s)", [DAYS_BACK, DAYS_AHEAD])
            return int(cursor.fetchone()[0])
    except OperationalError as exc:
        logger.warning("partitions.busy", extra={"table": "request_log", "reason": str(exc).strip()})
        return 0


def first_day_kept() -> date:
    """The oldest day that any plan still shows, or that an import may still write."""
    longest_days: int = Plan.objects.aggregate(longest=Max("log_retention_days"))["longest"] or 0
    # One more: a request of the day's last moments is shown until its own time is over.
    return kept_since(now(), max(longest_days + 1, DAYS_BACK)).date()


def drop_expired() -> list[str]:
    """Drop the partitions of all days before the first one kept. Returns their names; those in use wait."""
    dropped = []
    with connection.cursor() as cursor:
        cursor.execute(_OLD_SQL, [first_day_kept()])
        names = [row[0] for row in cursor.fetchall()]
    for name in names:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                cursor.execute(f'DROP TABLE "{name}"')
        except OperationalError as exc:
            logger.warning("partitions.busy", extra={"table": name, "reason": str(exc).strip()})
            break
        dropped.append(name)
    if dropped:
        logger.info("partitions.dropped", extra={"tables": dropped})
    return dropped


def first_day_there() -> date:
    """The oldest day that has a partition; today when none has."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT min(to_date(right(relname, 8), 'YYYYMMDD')) FROM pg_class WHERE relname ~ '^request_log_[0-9]{8}$'"
        )
        found: date | None = cursor.fetchone()[0]
    return found or now().date()


def days_ahead() -> int:
    """How many days after today have their partition; without tomorrow's, rows go to DEFAULT at midnight."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(to_date(right(relname, 8), 'YYYYMMDD')) - %s FROM pg_class"
            " WHERE relname ~ '^request_log_[0-9]{8}$'",
            [now().date()],
        )
        return int(cursor.fetchone()[0] or 0)


def strays() -> int:
    """Rows in the DEFAULT partitions, ids of no known day, counted up to MOST_STRAYS. Any at all are logged."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM (SELECT 1 FROM request_log_default"
            " UNION ALL SELECT 1 FROM upstream_attempt_default LIMIT %s) AS rows",
            [MOST_STRAYS],
        )
        count = int(cursor.fetchone()[0])
    if count:
        logger.error("partitions.strays", extra={"rows": count})
    return count
