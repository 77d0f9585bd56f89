"""Tags of calls, over HTTP."""

from typing import Any

import httpx
import pytest

from billing.limiter.limits import Payer
from billing.selectors import spend_by_tag
from billing.services import set_tag_budget
from codexflow.lib.clock import now
from keys.tests.factories import a_key
from logs.models import RequestLog
from tests.support.installation import Installation
from tests.support.waiting import until

BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"model": "cfx-code", "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/messages": {"model": "cfx-code", "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/responses": {"model": "cfx-code", "input": "Hi"},
}


def post(
    running: Installation, key: str, path: str, *, metadata: object = None, tag: str | None = None
) -> httpx.Response:
    body = BODIES[path] | ({"metadata": metadata} if metadata is not None else {})
    headers = {"Authorization": f"Bearer {key}"} | ({"X-CFX-Tag": tag} if tag is not None else {})
    return httpx.post(f"{running.url}{path}", json=body, headers=headers, timeout=60)


@pytest.mark.parametrize("path", BODIES)
def test_a_tag_is_kept_with_the_request_and_goes_nowhere_else(running: Installation, path: str) -> None:
    key = a_key()
    for metadata, header, expected in (
        (None, "team/search", "team/search"),
        ({"tag": "Job-7"}, None, "Job-7"),
        ({"tag": "Job-7", "user_id": "u1"}, "team/search", "team/search"),
        ({"user_id": "u1"}, None, None),
        (None, None, None),
    ):
        response = post(running, key.plain, path, metadata=metadata, tag=header)
        assert response.status_code == 200, response.text
        row = running.row_of(response)
        assert row.tag == expected
        (entry,) = running.upstream.ledger(call_id=f"{row.request_id}.1", wait=1)
        assert "x-cfx-tag" not in entry["header_names"]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("metadata", "header"), [(None, "a b"), (None, "x" * 65), ({"tag": ""}, None), ({"tag": 5}, None)]
)
def test_a_tag_of_another_form_is_refused_in_the_shape_of_the_surface(
    running: Installation, path: str, metadata: object, header: str | None
) -> None:
    key = a_key()
    response = post(running, key.plain, path, metadata=metadata, tag=header)
    assert response.status_code == 400
    error = response.json()["error"]
    if path == "/v1/messages":
        assert response.json()["type"] == "error"
    else:
        assert (error["code"], error["param"]) == ("invalid_tag", "X-CFX-Tag" if header else "metadata.tag")
    assert "1 to 64 characters" in error["message"]


def test_a_hard_budget_refuses_calls_with_its_tag_only(running: Installation) -> None:
    key = a_key()
    organization = key.row.organization
    set_tag_budget(organization, "team/a", day_nanos=None, month_nanos=1)
    set_tag_budget(organization, "team/b", day_nanos=1, month_nanos=None, is_hard=False)

    def status(tag: str | None) -> int:
        return post(running, key.plain, "/v1/chat/completions", tag=tag).status_code

    until(lambda: status("team/a") == 402, what="the budget")
    assert [status(each) for each in (None, "team/b", "team/A", "other")] == [200] * 4
    refused = post(running, key.plain, "/v1/chat/completions", tag="team/a")
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert "Budget of the month of the tag team/a" in refused.json()["error"]["message"]
    assert refused.headers["x-should-retry"] == "false"
    set_tag_budget(organization, "team/a", day_nanos=None, month_nanos=None)
    until(lambda: status("team/a") == 200, what="its end")


def test_what_a_tag_has_spent_counts_from_the_ledger_on(running: Installation) -> None:
    """A budget that is set later counts what was spent before, and every call gives its hold back."""
    key = a_key()
    organization = key.row.organization
    rows = [running.row_of(post(running, key.plain, "/v1/chat/completions", tag="team/a")) for _ in range(3)]
    spent = sum(row.cost_nanos for row in rows)
    (known,) = spend_by_tag(organization, now().date(), now().date())
    assert (known.tag, known.requests, known.cost_nanos) == ("team/a", 3, spent)
    budget = set_tag_budget(organization, "team/a", day_nanos=None, month_nanos=10**12)
    scope = Payer.of(running.prefix, organization.pk, key.row.lineage_id).shard.prefix + f"scope:t:{budget.pk}"

    def counted() -> list[int]:
        values: Any = running.redis.hmget(scope, "n", "ms", "held")
        return [int(each) for each in values if each is not None]

    def is_counted() -> bool:
        return post(running, key.plain, "/v1/chat/completions", tag="team/a").is_success and bool(counted())

    until(is_counted, what="the scope")
    later = RequestLog.objects.filter(organization_id=organization.pk)
    until(lambda: later.count() == counted()[0], what="the rows")
    assert counted() == [later.count(), sum(later.values_list("cost_nanos", flat=True)), 0]


def test_requests_are_found_by_their_tag(running: Installation) -> None:
    key, eve = a_key(), a_key()
    tagged = post(running, key.plain, "/v1/chat/completions", tag="team:a")
    for other in (None, "team:ab"):
        running.row_of(post(running, key.plain, "/v1/chat/completions", tag=other))
    running.row_of(tagged)

    def found(of: str, tag: str) -> list[dict[str, object]]:
        reply = httpx.get(
            f"{running.url}/api/v1/requests", params={"tag": tag}, headers={"Authorization": f"Bearer {of}"}, timeout=60
        )
        return list(reply.json()["data"])

    (only,) = found(key.plain, "team:a")
    assert (only["id"], only["tag"]) == (tagged.headers["x-cfx-request-id"], "team:a")
    assert found(eve.plain, "team:a") == []
    one = httpx.get(
        f"{running.url}/api/v1/requests/{only['id']}", headers={"Authorization": f"Bearer {key.plain}"}, timeout=60
    )
    assert one.json()["tag"] == "team:a"
