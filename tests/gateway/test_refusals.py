"""Refused calls of known keys are counted by key and code, and seen by their organization alone."""

import httpx

from keys.tests.factories import a_key
from logs.models import RefusalCount, RequestLog
from tests.support.installation import Installation
from tests.support.waiting import until


def test_every_refusal_of_a_known_key_is_counted(running: Installation) -> None:
    ada, eve = a_key(daily_requests=1), a_key()
    assert running.post(ada.plain).status_code == 200
    for _ in range(3):
        assert running.post(ada.plain).status_code == 429
    assert running.post(ada.plain, model="gpt-99").status_code == 400
    assert running.post(ada.plain, headers={"X-CFX-Stage": "deploy"}).status_code == 400
    assert running.post("cfx_nobody").status_code == 401
    counts = until(
        lambda: (
            {row.code: row.count for row in RefusalCount.objects.filter(key_id=ada.row.id)}.get("invalid_stage")
            and {row.code: row.count for row in RefusalCount.objects.filter(key_id=ada.row.id)}
        ),
        what="the counts",
    )
    assert counts == {"daily_quota_exceeded": 3, "model_not_allowed": 1, "invalid_stage": 1}
    assert RequestLog.objects.filter(key_id=ada.row.id).count() == 1
    for key, codes in ((ada, set(counts)), (eve, set())):
        found = httpx.get(f"{running.url}/api/v1/refusals", headers={"Authorization": f"Bearer {key.plain}"}).json()
        assert {row["code"] for row in found["data"]} == codes
        assert all(row["message"] for row in found["data"])
    (quota,) = RefusalCount.objects.filter(code="daily_quota_exceeded", key_id=ada.row.id)
    assert quota.message.startswith("1 request a day")
