"""Stage verdicts: users' feedback on the stage of a request."""

from accounts.models import Organization, User
from codexflow.lib.clock import now
from logs.models import RequestLog, StageVerdict


def set_verdict(organization: Organization, row: RequestLog, *, right_stage: str, by: User) -> StageVerdict | None:
    """Store the right stage of a request, replacing an earlier verdict; the stage it had deletes the verdict (None)."""
    if right_stage == row.stage:
        StageVerdict.objects.filter(organization=organization, request_id=row.request_id).delete()
        return None
    verdict, _ = StageVerdict.objects.update_or_create(
        request_id=row.request_id,
        organization=organization,
        defaults={
            "created_by": by,
            "created_at": now(),
            "stage": row.stage,
            "reason": row.stage_reason,
            "surface": row.surface,
            "requested_model": row.requested_model,
            "right_stage": right_stage,
        },
    )
    return verdict


def verdict_of(organization: Organization, row: RequestLog) -> StageVerdict | None:
    """Verdict on a request; None when there is none."""
    return StageVerdict.objects.filter(organization=organization, request_id=row.request_id).first()
