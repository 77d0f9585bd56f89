"""What people say the stage of a request should have been."""

from accounts.models import Organization, User
from codexflow.lib.clock import now
from logs.models import RequestLog, StageVerdict


def judge_stage(organization: Organization, row: RequestLog, *, right_stage: str, by: User) -> StageVerdict | None:
    """Keep what the stage should have been, in place of what was said before; the told stage takes it back (None)."""
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
    """What was said of a request; None when nobody did."""
    return StageVerdict.objects.filter(organization=organization, request_id=row.request_id).first()
