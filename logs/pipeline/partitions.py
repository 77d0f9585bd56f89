"""Day partitions of request_log and upstream_attempt: created ahead, dropped when no plan shows them any longer.

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
# Creating and dropping wait for readers of the whole log, and block all queries behind them: give up and retry hourly.
LOCK_TIMEOUT = "2s"
MAX_STRAYS = 1_000

_OLD_SQL = """
SELECT child.relname FROM pg_inherits
JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent
WHERE parent.relname IN ('request_log', 'upstream_attempt') AND child.relname ~ '_[0-9]{8}$'
  AND to_date(right(child.relname, 8), 'YYYYMMDD') < %s
ORDER BY right(child.relname, 8), child.relname
"""


def make_ahead() -> int:
    """Create the missing partitions around today, and move their days' rows out of DEFAULT.

    Idempotent. Returns how many were created: none while the log is read as a whole, since several days are ahead.
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
    """Oldest day that any plan still shows, or that an import may still write."""
    longest_days: int = Plan.objects.aggregate(longest=Max("log_retention_days"))["longest"] or 0
    # One more: a request at the end of a day is shown until its own retention ends.
    return kept_since(now(), max(longest_days + 1, DAYS_BACK)).date()


def drop_expired() -> list[str]:
    """Drop the partitions of all days before the first one kept. Returns their names; busy ones are left for later."""
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


def first_partition_day() -> date:
    """Oldest day that has a partition; today when none has."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT min(to_date(right(relname, 8), 'YYYYMMDD')) FROM pg_class WHERE relname ~ '^request_log_[0-9]{8}$'"
        )
        found: date | None = cursor.fetchone()[0]
    return found or now().date()


def days_ahead() -> int:
    """Number of days after today with a partition; without tomorrow's, rows go to DEFAULT at midnight."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(to_date(right(relname, 8), 'YYYYMMDD')) - %s FROM pg_class"
            " WHERE relname ~ '^request_log_[0-9]{8}$'",
            [now().date()],
        )
        return int(cursor.fetchone()[0] or 0)


def strays() -> int:
    """Count rows in the DEFAULT partitions (ids of no known day), up to MAX_STRAYS. Any are logged as an error."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM (SELECT 1 FROM request_log_default"
            " UNION ALL SELECT 1 FROM upstream_attempt_default LIMIT %s) AS rows",
            [MAX_STRAYS],
        )
        count = int(cursor.fetchone()[0])
    if count:
        logger.error("partitions.strays", extra={"rows": count})
    return count
