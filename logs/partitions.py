"""Day partitions of request_log and upstream_attempt: made ahead."""

from django.db import connection

DAYS_BACK = 35  # imports reach this far
DAYS_AHEAD = 7


def make_ahead() -> int:
    """Make the partitions that are missing around today. Idempotent; returns how many were made."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT cfx_make_partitions(current_date - %s, current_date + %s)", [DAYS_BACK, DAYS_AHEAD])
        return int(cursor.fetchone()[0])


def strays() -> int:
    """Rows in the DEFAULT partitions: ids of no known day. Anything above zero deserves a look."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM request_log_default) + (SELECT count(*) FROM upstream_attempt_default)"
        )
        return int(cursor.fetchone()[0])
