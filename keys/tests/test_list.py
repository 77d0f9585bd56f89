"""The list of keys: found among a thousand, by name, key, maker, end or spend."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing.models import Account, Plan, SpendDaily
from codexflow.lib.clock import now
from keys.models import ApiKey
from keys.services import KeyTerms, issue_key, revoke_key
from tests.support.cast import Cast


@pytest.fixture
def ada(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def shown(ada: Client, cast: Cast, **query: Any) -> list[str]:
    """Names of the keys on the page, from the top."""
    response = ada.get(f"/o/{cast.slug}/keys/", query)
    assert response.status_code == 200
    return [row.key.name for row in response.context["rows"]]


def many(cast: Cast, count: int) -> None:
    template = cast.key
    ApiKey.objects.bulk_create(
        ApiKey(
            organization=cast.organization,
            created_by=cast.ben if number % 2 else cast.ada,
            name=f"job-{number:04}",
            public_id=f"z{number:07}",
            digest=bytes(template.digest),
            last_four="0000",
        )
        for number in range(count)
    )


def test_a_key_is_found_among_a_thousand_by_name_key_and_maker(ada: Client, cast: Cast) -> None:
    many(cast, 1_000)
    assert shown(ada, cast, q="job-0777") == ["job-0777"]
    assert shown(ada, cast, q="cfx_z0000042") == ["job-0042"]
    assert shown(ada, cast, q=f"cfx_{cast.key.public_id}") == ["prod-web"]
    assert set(shown(ada, cast, q="ben@example")) <= {f"job-{number:04}" for number in range(1, 1_000, 2)}
    assert shown(ada, cast, q="nothing like it") == []


def test_pages_hold_fifty_and_cost_the_same_number_of_queries(ada: Client, cast: Cast) -> None:
    shown(ada, cast)  # the first request of a session does more
    with CaptureQueriesContext(connection) as few:
        shown(ada, cast)
    many(cast, 120)
    with CaptureQueriesContext(connection) as lots:
        first = shown(ada, cast)
    assert len(lots) == len(few)
    assert len(first) == 50
    seen = [*first, *shown(ada, cast, page=2), *shown(ada, cast, page=3)]
    assert len(seen) == len(set(seen)) == 121
    assert shown(ada, cast, page=99) == shown(ada, cast, page=3)
    assert "1–50 of 121" in ada.get(f"/o/{cast.slug}/keys/").content.decode()


def test_a_pasted_secret_is_not_shown_again(ada: Client, cast: Cast) -> None:
    response = ada.get(f"/o/{cast.slug}/keys/", {"q": "cfx_abcdefgh_verysecretpart", "state": "working"})
    assert response["Location"] == f"/o/{cast.slug}/keys/?q=cfx_abcdefgh&state=working"
    assert shown(ada, cast, q="cfx_abcdefgh") == []


def test_keys_are_ordered_by_end_and_by_spend_and_filtered_by_state(ada: Client, cast: Cast) -> None:
    at = now()
    Account.objects.filter(organization=cast.organization).update(plan=Plan.objects.get(slug="team"))
    soon = issue_key(
        cast.organization, name="soon", created_by=cast.ada, terms=KeyTerms(expires_at=at + timedelta(days=1))
    ).row
    later = issue_key(
        cast.organization, name="later", created_by=cast.ada, terms=KeyTerms(expires_at=at + timedelta(days=9))
    ).row
    gone = issue_key(cast.organization, name="gone", created_by=cast.ada).row
    SpendDaily.objects.create(
        organization=cast.organization, key_id=later.pk, day=at.date(), requests=1, cost_nanos=5_000
    )
    revoke_key(gone)
    assert shown(ada, cast, order="expires") == ["soon", "later", "prod-web", "gone"]
    assert shown(ada, cast, order="spent")[0] == "later"
    assert shown(ada, cast, order="used")[0] == "later"
    assert shown(ada, cast, order="name") == ["later", "prod-web", "soon", "gone"]
    assert shown(ada, cast, state="revoked") == ["gone"]
    assert "gone" not in shown(ada, cast, state="working")
    ApiKey.objects.filter(pk=soon.pk).update(expires_at=at - timedelta(minutes=1))
    assert shown(ada, cast, state="expired") == ["soon"]
    assert shown(ada, cast, state="nonsense", order="nonsense") == shown(ada, cast)


def test_a_filter_replaces_only_the_table(ada: Client, cast: Cast) -> None:
    part = ada.get(f"/o/{cast.slug}/keys/", {"q": "prod"}, headers={"hx-request": "true"}).content.decode()
    assert part.lstrip().startswith('<div id="results"')
    assert "prod-web" in part
