"""Reconciliation of a day with LiteLLM's reports: matches, gaps and drift."""

import hashlib
import io
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client

from accounts.models import User
from billing.pricing import Usage
from billing.tests.factories import an_organization
from codexflow.catalogue import directory
from codexflow.lib import clock
from codexflow.lib.ids import new_id, random_id
from keys.tests.factories import a_key
from logs.litellm.ingest import take
from logs.litellm.reconciliation import DayModel, compare, totals
from logs.litellm.tests.factories import a_payload, mapped
from logs.pipeline.drain import store
from logs.pipeline.events import RANK_PROVIDER, AttemptFact, UsageEvent
from logs.tests.factories import an_event, entries

pytestmark = pytest.mark.django_db(transaction=True)
USAGE = Usage(prompt_tokens=120, completion_tokens=60)
EXPECTED_NANOS = 120 * 150 + 60 * 600


def requests(count: int, **facts: Any) -> list[UsageEvent]:
    events = [
        an_event(an_organization().id, random_id(), rank=RANK_PROVIDER, usage=USAGE, **facts) for _ in range(count)
    ]
    store(entries(events))
    return events


def test_a_day_is_reconciled_model_by_model() -> None:
    same, fewer, _unreported = requests(3)
    take(mapped(a_payload(f"{same.request_id}.1", response_cost=EXPECTED_NANOS / 1e9)))
    take(mapped(a_payload(f"{fewer.request_id}.1", completion_tokens=50, response_cost=(EXPECTED_NANOS + 70) / 1e9)))
    take(mapped(a_payload("x", key_hash=hashlib.sha256(b"sk-nobody").hexdigest(), response_cost=1e-6)))
    key = a_key().row
    key.litellm_key_id = "k" * 64
    key.save()
    take(mapped(a_payload("y", key_hash="k" * 64)))
    won = AttemptFact(n=2, model="gemini-2.0-flash", status=200, first_byte_ms=1)
    unreached = (AttemptFact(n=1, model="gpt-4o-mini"), won)
    requests(1, attempts=unreached)
    (other, found) = compare(clock.now().date())
    assert found == DayModel(
        day=clock.now().date(),
        model="gpt-4o-mini",
        matched=2,
        missing_here=1,
        missing_there=1,
        past_gateway=1,
        differing=1,
        token_drift=-10,
        expected_cost_nanos=2 * EXPECTED_NANOS,
        reported_cost_nanos=2 * EXPECTED_NANOS + 70,
        cost_drift_nanos=70,
        missing_cost_nanos=1000,
    )
    assert (other.model, other.missing_there, other.is_clean) == ("gemini-2.0-flash", 1, False)
    sums = totals([clock.now().date()])
    assert (sums.matched, sums.missing_there, sums.token_drift, sums.cost_drift_nanos) == (2, 2, 10, 70)


def test_a_day_without_differences_is_clean_and_a_day_without_requests_is_empty() -> None:
    (event,) = requests(1)
    take(mapped(a_payload(f"{event.request_id}.1", response_cost=EXPECTED_NANOS / 1e9)))
    assert [row.is_clean for row in compare(clock.now().date())] == [True]
    assert compare(clock.now().date() - timedelta(days=3)) == []
    out = io.StringIO()
    call_command("reconcile", "--day", f"{clock.now():%F}", stdout=out)
    assert "1 models, 0 of them with differences." in out.getvalue()
    assert out.getvalue().splitlines()[1].split() == ["gpt-4o-mini", "1", "0", "0", "0", "0", "+0", "0.000000"]


def test_only_operators_read_the_reconciliation() -> None:
    directory.load(settings.ENV.config_path)
    (event,) = requests(1)
    take(mapped(a_payload(f"{event.request_id}.1"), a_payload(f"{new_id()}.1")))
    url, today = "/api/v1/reconciliation", f"{clock.now():%F}"
    client, issued = Client(), a_key()
    assert client.get(url).status_code == 401
    assert client.get(url, headers={"Authorization": f"Bearer {issued.plain}"}).status_code == 404
    client.force_login(issued.row.created_by)
    assert client.get(url).status_code == 404
    User.objects.filter(pk=issued.row.created_by_id).update(role=User.Role.ADMIN)
    found = client.get(url, {"start": today, "end": today}).json()
    assert found["totals"]["matched"] == 1
    assert found["totals"]["missing_here"] == 1
    assert {row["model"] for row in found["data"]} == {"gpt-4o-mini"}
    assert client.get(url, {"start": "2020-01-01", "end": today}).status_code == 400
