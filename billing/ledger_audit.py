"""Prove the ledger: every balance, source and daily sum follows from the entries. All of it in one snapshot.

Each finding names what disagrees and by how much. Nothing is corrected: a difference in money is for people to explain.
"""

import logging
from datetime import datetime, timedelta

from django.db import connection, transaction

from billing.ledger_equations import Finding, findings_in
from billing.models import LedgerAudit
from codexflow.lib import clock

logger = logging.getLogger(__name__)

# Findings that are stored and shown; the number of all of them is known.
MAX_SHOWN = 100
KEPT_AUDITS = 400
EVERY = timedelta(hours=20)


def audit_ledger() -> list[Finding]:
    """Return everything that disagrees. Reads all entries: once a night is meant."""
    is_outermost = not connection.in_atomic_block
    with transaction.atomic(), connection.cursor() as cursor:
        if is_outermost:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return list(findings_in(cursor))


def audit_once_a_day(now: datetime) -> LedgerAudit | None:
    """Run the audit and store its result, unless the last one is recent. Findings are logged as errors."""
    last = LedgerAudit.objects.order_by("-ran_at").first()
    if last is not None and now - last.ran_at < EVERY:
        return None
    return store_audit(audit_ledger(), now=now)


def store_audit(findings: list[Finding], *, now: datetime) -> LedgerAudit:
    """Store the result of an audit, and forget the oldest."""
    for finding in findings[:MAX_SHOWN]:
        logger.error("ledger.audit_failed", extra={"finding": str(finding)})
    stored = LedgerAudit.objects.create(
        ran_at=now, findings=len(findings), shown=[str(finding) for finding in findings[:MAX_SHOWN]]
    )
    kept = LedgerAudit.objects.order_by("-ran_at").values("pk")[:KEPT_AUDITS]
    LedgerAudit.objects.exclude(pk__in=kept).delete()
    return stored


def last_audit() -> LedgerAudit | None:
    """Return the last stored audit."""
    return LedgerAudit.objects.order_by("-ran_at").first()


def age_s(audit: LedgerAudit) -> float:
    return (clock.now() - audit.ran_at).total_seconds()
