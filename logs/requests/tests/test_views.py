"""The request log and one request."""

import html
import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing.models import Plan
from billing.pricing import Usage
from keys.models import ApiKey
from keys.services import issue_key
from logs.pipeline.events import AttemptFact
from logs.tests.factories import backdated
from tests.support.cast import Cast, an_event_of, happened

HTMX = {"hx-request": "true"}


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, 4),
        ({"stage": "plan"}, 1),
        ({"model": "gpt-4o"}, 1),
        ({"status": "errors"}, 1),
        ({"status": "ok"}, 3),
        ({"status": "503"}, 1),
        ({"range": "24h"}, 3),
        ({"member": "ada"}, 3),
        ({"member": "ben"}, 1),
        ({"stage": "nonsense", "key": "x", "range": "1y"}, 4),
        ({"before": "nonsense", "request": "nonsense"}, 4),
        ({"q": "stage:plan,review"}, 1),
        ({"q": "-model:gpt-4o", "status": "ok"}, 2),
        ({"q": "status:503 code:upstream_unavailable key:PROD-WEB"}, 1),
        ({"q": "member:ben@example.org,ada@example.org"}, 4),
        ({"q": "gpt-4o", "range": "24h"}, 3),
        ({"q": "stage:code", "stage": "plan"}, 0),
    ],
)
def test_filters_are_in_the_url(page: Client, cast: Cast, query: dict[str, str], expected: int) -> None:
    happened(
        cast,
        an_event_of(cast, stage="plan", user_id=cast.ada.pk),
        an_event_of(cast, model="gpt-4o", user_id=cast.ada.pk),
        an_event_of(cast, status=503, error_code="upstream_unavailable", user_id=cast.ada.pk),
        backdated(an_event_of(cast, user_id=cast.ben.pk), days=3),
    )
    if "member" in query:
        query = {"member": str(getattr(cast, query["member"]).pk)}
    response = page.get(reverse("log", args=[cast.slug]), query)
    rows = response.context["rows"]
    assert len(rows) == expected


def test_a_request_is_found_by_a_prefix_of_its_id(page: Client, cast: Cast) -> None:
    event, other = backdated(an_event_of(cast), days=0), backdated(an_event_of(cast), days=2)
    happened(cast, event, other)
    where = reverse("log", args=[cast.slug])
    found = page.get(where, {"id": str(event.request_id)[:18]}).context["rows"]
    assert [row.request.request_id for row in found] == [event.request_id]
    assert page.get(where, {"id": "no id"}).context["rows"] == []
    old = backdated(an_event_of(cast), days=5)
    happened(cast, old)
    found = page.get(where, {"id": str(old.request_id), "range": "24h"}).context["rows"]
    assert [each.request.request_id for each in found] == [old.request_id], "its id tells its time"
    for part in (str(event.request_id)[-8:], f"…{str(event.request_id)[-8:]}", str(event.request_id)[10:20].upper()):
        found = page.get(where, {"id": part}).context["rows"]
        assert [each.request.request_id for each in found] == [event.request_id], part


def test_a_search_that_cannot_be_read_is_kept_and_says_why(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    where = reverse("log", args=[cast.slug])
    for text, sentence in (
        ("modle:gpt", "There is no field “modle”. Fields: status, model, stage, key, member, code,"),
        ("status:teapot", "“teapot” isn't a value of “status”. Examples: status:errors"),
        ("key:nobody", "No key is called “nobody”."),
        ("model:", "“model:” has no value."),
        ('tag:"a', "A quotation mark is not closed."),
    ):
        response = page.get(where, {"q": text, "stage": "plan"})
        shown = html.unescape(response.content.decode())
        assert sentence in shown
        assert f'value="{text}"' in shown
        assert response.context["rows"] == []
        export = html.unescape(page.get(reverse("export-new", args=[cast.slug]), {"q": text}).content.decode())
        assert sentence in export
        assert f'name="q" value="{text}"' in export, "left out, the export would have every request"
        assert page.post(reverse("export-new", args=[cast.slug]), {"q": text}).status_code == 422


def test_older_addresses_show_their_filters_in_the_bar(page: Client, cast: Cast) -> None:
    event = an_event_of(cast, status=503, error_code="upstream_timeout", tag="team a")
    happened(cast, event, an_event_of(cast))
    response = page.get(reverse("log", args=[cast.slug]), {"code": "upstream_timeout", "tag": "team a", "q": "503"})
    assert response.context["form"].bar == '503 tag:"team a" code:upstream_timeout'
    again = page.get(reverse("log", args=[cast.slug]), {"q": 'tag:"team a" code:upstream_timeout'})
    assert [row.request.request_id for row in again.context["rows"]] == [event.request_id]


def test_suggestions_are_values_with_their_numbers(page: Client, client: Client, cast: Cast) -> None:
    agents = ("claude-cli/1.0.83 (external, cli)", "claude-cli/1.0.84", "curl/8.5")
    happened(cast, *(an_event_of(cast, model="gpt-4o", user_agent=agent, tag="team a") for agent in agents))
    where = reverse("log-suggestions", args=[cast.slug])

    def suggested(field: str, typed: str = "") -> list[tuple[str, str]]:
        found = page.get(where, {"field": field, "typed": typed}).json()["suggestions"]
        return [(each["text"], each["note"]) for each in found]

    assert suggested("", "mod") == [("model:", "model:claude-sonnet-5.5,gpt-6-luna")]
    assert suggested("model", "GPT") == [("gpt-4o", "3")]
    assert suggested("key") == [("prod-web", "3")]
    assert suggested("client") == [("claude-code", "2"), ("curl", "1")]
    assert suggested("tag", '"te') == [('"team a"', "3")]
    assert suggested("endpoint") == [("/v1/chat/completions", "3")]
    assert suggested("cost", ">0.0") == [(">0.001", ""), (">0.01", "")]
    assert suggested("nonsense") == suggested("id") == []
    client.force_login(cast.eve)
    assert client.get(where, {"field": "model"}).status_code == 404
    own = reverse("log-suggestions", args=[cast.eve.organizations.get().slug])
    assert client.get(own, {"field": "model"}).json() == {"suggestions": []}


def test_keys_of_one_name_are_told_apart_and_a_long_list_is_searched(page: Client, cast: Cast) -> None:
    where = reverse("log", args=[cast.slug])
    twin = issue_key(cast.organization, name="prod-web", created_by=cast.ada).row
    choices = page.get(where).context["form"].fields["key"].choices
    assert [label for _value, label in choices if label.startswith("prod-web (")] == sorted(
        (f"prod-web ({key.prefix}…)" for key in (cast.key, twin)), key=str.casefold
    )
    assert '<select class="select" name="key">' in page.get(where).content.decode()
    ApiKey.objects.bulk_create(
        ApiKey(organization=cast.organization, created_by=cast.ada, name=f"key {n}", public_id=f"{n:08}", digest=b"")
        for n in range(30)
    )
    text = page.get(where, {"key": str(twin.pk)}).content.decode()
    assert 'data-chooses="key"' in text
    assert f'name="key" value="{twin.pk}"' in text
    assert f'value="prod-web ({twin.prefix}…)"' in text


def test_rows_are_found_by_key(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    where = reverse("log", args=[cast.slug])
    assert len(page.get(where, {"key": str(cast.key.pk)}).context["rows"]) == 1


def test_paging_shows_every_request_once(page: Client, cast: Cast) -> None:
    events = [an_event_of(cast) for _ in range(120)]
    happened(cast, *events)
    where, seen = reverse("log", args=[cast.slug]), []
    query = ""
    while True:
        response = page.get(f"{where}?{query}", headers=HTMX if query else {})
        seen += [row.request.request_id for row in response.context["rows"]]
        query = response.context["older"]
        if not query:
            break
    assert seen == sorted((event.request_id for event in events), reverse=True)


def test_requests_past_retention_are_not_shown(page: Client, cast: Cast) -> None:
    happened(cast, backdated(an_event_of(cast), days=10), an_event_of(cast))
    where = reverse("log", args=[cast.slug])
    assert len(page.get(where, {"range": "30d"}).context["rows"]) == 1  # the free plan keeps seven days
    Plan.objects.filter(slug="free").update(log_retention_days=30)
    assert len(page.get(where, {"range": "30d"}).context["rows"]) == 2


def test_filtering_returns_the_table_alone(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    where = reverse("log", args=[cast.slug])
    part = page.get(where, headers=HTMX).content.decode()
    assert part.strip().startswith('<div id="results"')
    back_button = page.get(where, headers={**HTMX, "hx-history-restore-request": "true"}).content.decode()
    assert "<html" in back_button


def test_without_matches_the_page_offers_to_clear_the_filters(page: Client, cast: Cast) -> None:
    assert "Clear filters" in page.get(reverse("log", args=[cast.slug]), {"stage": "plan"}).content.decode()


def test_a_request_shows_its_charge(page: Client, cast: Cast) -> None:
    event = an_event_of(
        cast,
        usage=Usage(prompt_tokens=1000, cached_tokens=400, cache_write_tokens=300, completion_tokens=500),
        hold_nanos=9_000_000,
        attempts=(
            AttemptFact(n=1, model="gpt-4o", status=502, error_code="upstream_error", duration_ms=100),
            AttemptFact(n=2, model="gpt-4o-mini", status=200, started_offset_ms=100, first_byte_ms=50, duration_ms=300),
        ),
        latency_ms=400,
    )
    happened(cast, event)
    where = reverse("request", args=[cast.slug, event.request_id])
    text = page.get(where).content.decode()
    for shown in ("$0.000045", "$0.000060", "$0.000300", "$0.000450", "$0.009000", "upstream_error", "Cache write"):
        assert shown in text, shown
    part = page.get(where, headers=HTMX).content.decode()
    assert "<html" not in part
    opened = page.get(reverse("log", args=[cast.slug]), {"request": str(event.request_id)}).content.decode()
    assert "data-open" in opened
    assert "$0.000450" in opened
    assert "More was charged than held" not in text


def test_a_charge_above_its_hold_is_explained(page: Client, cast: Cast) -> None:
    event = an_event_of(cast, hold_nanos=1)
    happened(cast, event)
    text = page.get(reverse("request", args=[cast.slug, event.request_id])).content.decode()
    assert "More was charged than held" in text


def test_the_ledger_is_hidden_from_members_without_billing_access(client: Client, cast: Cast) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    client.force_login(cast.vic)
    assert (
        "Held at the start" not in client.get(reverse("request", args=[cast.slug, event.request_id])).content.decode()
    )


@pytest.mark.parametrize("name", ["overview", "log"])
def test_the_number_of_queries_does_not_grow_with_the_requests(page: Client, cast: Cast, name: str) -> None:
    where = reverse(name, args=[cast.slug])
    happened(cast, an_event_of(cast))
    page.get(where)
    with CaptureQueriesContext(connection) as few:
        page.get(where)
    happened(cast, *(an_event_of(cast) for _ in range(40)))
    with CaptureQueriesContext(connection) as many:
        page.get(where)
    assert len(many) <= len(few)
    assert not [each for each in many.captured_queries if "COUNT(*)" in each["sql"] and "request_log" in each["sql"]]


def test_a_request_shows_its_stage_reason_and_a_curl_command(page: Client, cast: Cast) -> None:
    event = an_event_of(cast, stage="plan", stage_reason="keyword", requested_model="cfx-auto", is_stream=True)
    happened(cast, event)
    text = html.unescape(page.get(reverse("request", args=[cast.slug, event.request_id])).content.decode())
    assert "words of the last message" in text
    assert "-H 'X-CFX-Stage: plan'" in text
    assert '"stream": true' in text


def test_a_stage_verdict_is_stored_changed_and_deleted(client: Client, cast: Cast) -> None:
    event = an_event_of(cast, stage="code", stage_reason="default", requested_model="cfx-auto")
    happened(cast, event)
    client.force_login(cast.ben)
    where = reverse("request-stage", args=[cast.slug, event.request_id])
    part = client.post(where, {"right_stage": "review"}, headers=HTMX).content.decode()
    assert "Should have been" in part
    client.post(where, {"right_stage": "plan"})
    assert client.post(where, {"right_stage": "nonsense"}).status_code == 404
    (line,) = verdicts()
    assert (line["request_id"], line["right_stage"], line["stage"], line["reason"]) == (
        str(event.request_id), "plan", "code", "default",
    )  # fmt: skip
    assert set(line) == {
        "request_id", "organization_id", "judged_at", "surface", "requested_model", "stage", "reason", "right_stage",
    }  # fmt: skip
    assert verdicts("--since", "2999-01-01") == []
    client.post(where, {"right_stage": "code"})
    assert verdicts() == []


def verdicts(*words: str) -> list[Any]:
    out = io.StringIO()
    call_command("wrong_stages", *words, stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_viewer_may_not_set_verdicts(client: Client, cast: Cast) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    client.force_login(cast.vic)
    text = client.get(reverse("request", args=[cast.slug, event.request_id])).content.decode()
    assert "Report wrong stage" not in text
    assert "Export" not in client.get(reverse("log", args=[cast.slug])).content.decode()


def test_the_live_tail_stays_on_after_a_reload(page: Client, cast: Cast) -> None:
    field = 'id="live-field" disabled'
    where = reverse("log", args=[cast.slug])
    assert field in page.get(where).content.decode()
    assert field not in page.get(where, {"live": "1"}).content.decode()


def test_the_focus_stays_on_the_button_for_older_requests(page: Client, cast: Cast) -> None:
    """The script restores the focus by id; without the same id it goes back to the top of the page."""
    happened(cast, *(an_event_of(cast) for _ in range(101)))
    response = page.get(reverse("log", args=[cast.slug]))
    for _ in range(2):
        assert response.content.decode().count('id="load-older"') == (1 if response.context["older"] else 0)
        response = page.get(f"{reverse('log', args=[cast.slug])}?{response.context['older']}", headers=HTMX)
    assert not response.context["older"]
