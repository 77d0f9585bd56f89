"""The overview."""

import msgspec
import pytest
from django.test import Client
from django.urls import reverse

from billing.pricing import Usage
from codexflow.lib.ids import new_id
from codexflow.templatetags import show
from logs.tests.factories import backdated
from tests.support.cast import Cast, an_event_of, happened

HTMX = {"hx-request": "true"}


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def test_before_the_first_request_the_page_has_instructions(page: Client, cast: Cast) -> None:
    text = page.get(reverse("overview", args=[cast.slug])).content.decode()
    assert "chat/completions" in text
    assert "from openai import OpenAI" in text
    assert "import OpenAI from &quot;openai&quot;" in text
    assert "every 3s" in text


def test_the_waiting_page_turns_into_the_overview(page: Client, cast: Cast) -> None:
    where = reverse("overview", args=[cast.slug])
    waiting = page.get(where, {"waiting": ""}, headers=HTMX)
    assert "Waiting" in waiting.content.decode()
    happened(cast, an_event_of(cast))
    assert page.get(where, {"waiting": ""}, headers=HTMX)["HX-Refresh"] == "true"


def test_figures_of_the_range_and_of_the_period_before(page: Client, cast: Cast) -> None:
    good = an_event_of(cast, latency_ms=1000, ttft_ms=200)
    bad = an_event_of(cast, status=503, error_code="upstream_unavailable", usage=Usage(), latency_ms=1000)
    happened(cast, good, bad, *(backdated(an_event_of(cast, latency_ms=500), days=days) for days in (8, 9, 10, 11)))
    response = page.get(reverse("overview", args=[cast.slug]))
    kpis = {kpi["name"]: kpi for kpi in response.context["kpis"]}
    values = {name: kpi["value"] for name, kpi in kpis.items()}
    assert values == {"cost": show.usd(good.cost_nanos), "requests": "2", "tokens": "150", "errors": "1"}
    assert (kpis["requests"]["change"], kpis["errors"]["change"]) == (-50, None)
    latency = response.context["latency"]
    assert latency.latency["p95"] == pytest.approx(1000, rel=0.05)
    assert latency.ttft["p50"] == pytest.approx(200, rel=0.05)
    assert latency.earlier["p95"] == pytest.approx(500, rel=0.05)
    assert response.context["latency_kpi"]["change"] == pytest.approx(100, abs=10)
    assert 'id="chart-data"' in response.content.decode()


@pytest.mark.parametrize("group", ["model", "stage", "key", "member"])
@pytest.mark.parametrize("range_name", ["24h", "7d", "30d", "month"])
def test_every_range_and_group_of_the_chart(page: Client, cast: Cast, range_name: str, group: str) -> None:
    happened(cast, *(backdated(an_event_of(cast, user_id=cast.ada.pk), days=days) for days in (0, 1, 8, 20)))
    response = page.get(
        reverse("overview", args=[cast.slug]), {"range": range_name, "group": group, "metric": "tokens"}
    )
    assert response.status_code == 200
    spec = response.context["chart"]["spec"]
    assert all(len(series["values"]) == len(spec["buckets"]) for series in spec["series"])
    (line,) = response.context["breakdown"]
    expected = {"model": "gpt-4o-mini", "stage": "direct", "key": "prod-web", "member": "Ada"}[group]
    assert (line["name"], line["share"]) == (expected, 100)
    assert line["sums"].tokens == sum(spec["series"][0]["values"])
    # The number opens the requests that it counts.
    listed = page.get(f"{reverse('log', args=[cast.slug])}?{line['query']}").context["rows"]
    if range_name in ("24h", "7d"):
        assert len(listed) == line["sums"].requests


def test_invalid_parameters_mean_the_default(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    response = page.get(reverse("overview", args=[cast.slug]), {"range": "x", "group": "y", "metric": "z"})
    assert [link["is_chosen"] for link in response.context["ranges"]] == [False, True, False, False]


def test_small_groups_are_added_up_and_deleted_ones_have_a_name(page: Client, cast: Cast) -> None:
    happened(cast, *(msgspec.structs.replace(an_event_of(cast), key_id=new_id()) for _ in range(14)))
    response = page.get(reverse("overview", args=[cast.slug]), {"group": "key"})
    lines = response.context["breakdown"]
    assert len(lines) == 13
    assert lines[-1]["sums"].requests == 2
    assert lines[0]["name"].startswith("…")


def test_money_is_shown_only_with_billing_access(client: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    where = reverse("overview", args=[cast.slug])
    for person, sees in ((cast.ben, True), (cast.vic, False)):
        client.force_login(person)
        assert ("At this pace" in client.get(where).content.decode()) is sees
