"""The overview."""

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from django.test import Client
from django.urls import reverse

from billing.pricing import Usage
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id
from codexflow.templatetags import show
from logs.models import RefusalCount
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
    assert page.get(where, {"waiting": ""}, headers=HTMX)["HX-Redirect"] == f"{where}?first=1"
    first = page.get(where, {"first": "1"}).content.decode()
    arrived = first[first.index('id="first-request"') :].partition("</section>")[0]
    assert "/logs/0" in arrived
    for client in ("Claude Code", "Codex", "Cursor"):
        assert client in arrived
    assert 'id="first-request"' not in page.get(where).content.decode()


def test_the_doctor_is_offered_after_a_minute_of_waiting(page: Client, cast: Cast) -> None:
    where = reverse("overview", args=[cast.slug])
    count, text = 0, page.get(where).content.decode()
    while 'id="first-doctor"' not in text:
        count += 1
        asked = text.partition("?waiting=")[2].partition('"')[0]
        text = page.get(where, {"waiting": asked}, headers=HTMX).content.decode()
    assert count * 3 == 60
    assert "/doctor.sh | sh" in text
    for odd in ("x", "-1", "9" * 50, "٣"):
        assert "?waiting=1" in page.get(where, {"waiting": odd}, headers=HTMX).content.decode()


def test_a_refused_first_call_is_shown_where_it_is_waited_for(page: Client, cast: Cast) -> None:
    minute = now().replace(second=0, microsecond=0)
    RefusalCount.objects.create(
        organization_id=cast.organization.pk, key_id=cast.key.pk, code="model_not_allowed", minute=minute, count=1,
        message="The model 'gpt-1' is not allowed.",
    )  # fmt: skip
    text = page.get(reverse("overview", args=[cast.slug]), {"waiting": "1"}, headers=HTMX).content.decode()
    assert "There is no such model here" in text
    assert "gpt-1" in text


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
@pytest.mark.parametrize("range_name", ["24h", "7d", "30d", "90d", "month"])
def test_every_range_and_group_of_the_chart(page: Client, cast: Cast, range_name: str, group: str) -> None:
    happened(cast, *(backdated(an_event_of(cast, user_id=cast.ada.pk), days=days) for days in (0, 1, 8, 20)))
    response = page.get(
        reverse("overview", args=[cast.slug]), {"range": range_name, "group": group, "metric": "tokens"}
    )
    assert response.status_code == 200
    spec = response.context["chart"]
    assert all(len(series["values"]) == len(spec["buckets"]) for series in spec["series"])
    (line,) = response.context["breakdown"]
    expected = {"model": "gpt-4o-mini", "stage": "direct", "key": "prod-web", "member": "Ada"}[group]
    assert (line["name"], line["share"]) == (expected, 100)
    assert line["sums"].tokens == sum(spec["series"][0]["values"])
    # The number opens the requests that it counts.
    listed = page.get(f"{reverse('log', args=[cast.slug])}?{line['query']}").context["rows"]
    if range_name in ("24h", "7d"):  # the plan keeps seven days
        assert len(listed) == line["sums"].requests


def test_invalid_parameters_mean_the_default(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    response = page.get(reverse("overview", args=[cast.slug]), {"range": "x", "group": "y", "metric": "z"})
    assert [link["is_chosen"] for link in response.context["ranges"]] == [False, True, False, False, False]


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
        assert ("Projected this month" in client.get(where).content.decode()) is sees


def rows_of(page: Client, cast: Cast, query: str) -> int:
    return len(page.get(f"{reverse('log', args=[cast.slug])}?{query}").context["rows"])


@pytest.mark.parametrize("zone", ["UTC", "Europe/Istanbul", "Asia/Kolkata"])
@pytest.mark.parametrize("range_name", ["24h", "7d"])
def test_every_bucket_opens_the_log_with_exactly_its_requests(
    page: Client, cast: Cast, range_name: str, zone: str
) -> None:
    type(cast.ada).objects.filter(pk=cast.ada.pk).update(timezone=zone)
    facts: list[dict[str, Any]] = [{}, {"model": "gpt-4o"}, {"status": 503, "error_code": "upstream_unavailable"}]
    days = (0, 1, 2, 4) if range_name == "7d" else (0,)
    happened(cast, *(backdated(an_event_of(cast, **each), days=n) for n in days for each in facts))
    response = page.get(reverse("overview", args=[cast.slug]), {"range": range_name, "time_sort": "time"})
    lines, chart = response.context["times"], response.context["chart"]
    assert sum(line["sums"].requests for line in lines) == 3 * len(days)
    for i, line in enumerate(lines):
        if line["sums"].requests:
            query = line["query"]
            assert query == chart["links"][i]
            assert rows_of(page, cast, query) == line["sums"].requests
            assert rows_of(page, cast, f"{query}&status=errors") == line["sums"].errors
            for series in chart["series"]:
                query_of_series = f"{query}&{series['query']}"
                shown = page.get(f"{reverse('log', args=[cast.slug])}?{query_of_series}").context["rows"]
                assert all(row.request.model == series["name"] for row in shown)
                assert bool(shown) == bool(series["values"][i])
        else:
            assert rows_of(page, cast, chart["links"][i]) == 0


def test_requests_of_a_model_that_has_ended_are_found_from_the_overview(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast, model="gone-1"), an_event_of(cast))
    lines = page.get(reverse("overview", args=[cast.slug])).context["breakdown"]
    (line,) = [each for each in lines if each["name"] == "gone-1"]
    assert rows_of(page, cast, line["query"]) == 1


def test_a_bucket_that_the_plan_no_longer_keeps_has_no_link(page: Client, cast: Cast) -> None:
    happened(cast, backdated(an_event_of(cast), days=20))
    response = page.get(reverse("overview", args=[cast.slug]), {"range": "30d", "time_sort": "time"})
    (line,) = [each for each in response.context["times"] if each["sums"].requests]
    assert line["query"] == ""
    assert response.context["chart"]["links"][-1]


def test_latency_is_that_of_the_days_of_the_readers_zone(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast, latency_ms=1000), backdated(an_event_of(cast, latency_ms=100), days=2))
    for zone in ("UTC", "Pacific/Auckland", "America/Los_Angeles"):
        type(cast.ada).objects.filter(pk=cast.ada.pk).update(timezone=zone)
        response = page.get(reverse("overview", args=[cast.slug]), {"range": "7d", "time_sort": "time"})
        measured = [line for line in response.context["times"] if line["times"].p95 is not None]
        assert [line["sums"].requests for line in measured] == [1, 1]
        assert [line["times"].p50 for line in measured] == [pytest.approx(100, rel=0.05), pytest.approx(1000, rel=0.05)]
        course = response.context["course"]
        assert [value for value in course["p95"] if value] == [line["times"].p95 for line in measured]
        assert [value for value in course["rate"] if value is not None] == [0, 0]


def test_own_days_are_in_the_url(page: Client, cast: Cast) -> None:
    happened(cast, *(backdated(an_event_of(cast), days=days) for days in (1, 5, 6, 40)))
    where, today = reverse("overview", args=[cast.slug]), now().date()

    def shown(first: int, last: int) -> Any:
        days = {"from": str(today - timedelta(days=first)), "to": str(today - timedelta(days=last))}
        return page.get(where, {"range": "custom", **days, "metric": "requests"}).context

    context = shown(6, 5)
    assert (context["is_custom"], context["is_hourly"], context["total"].requests) == (True, True, 2)
    assert len(context["chart"]["buckets"]) == 48
    context = shown(40, 2)
    assert (context["is_hourly"], context["total"].requests, len(context["chart"]["buckets"])) == (False, 3, 39)
    assert f"from={today - timedelta(days=40)}" in context["query"]
    assert all("from=" in link["query"] for link in context["groups"])
    assert not any("from=" in link["query"] for link in context["ranges"])
    today_only = shown(0, 0)
    assert (today_only["is_hourly"], len(today_only["chart"]["buckets"])) == (True, now().hour + 1)


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (3, 5, "The last day is before the first."),
        (3, -1, "The last day is in the future."),
        (30, 0, "Your usage begins on"),
        (None, 0, "Choose the first day."),
        (3, None, "Choose the last day."),
    ],
)
def test_wrong_days_are_explained_and_the_default_is_shown(
    page: Client, cast: Cast, first: int | None, last: int | None, message: str
) -> None:
    happened(cast, backdated(an_event_of(cast), days=7))
    query = {"range": "custom"}
    query |= {"from": str(now().date() - timedelta(days=first))} if first is not None else {}
    query |= {"to": str(now().date() - timedelta(days=last))} if last is not None else {}
    response = page.get(reverse("overview", args=[cast.slug]), query)
    assert message in response.content.decode()
    assert (response.context["is_custom"], response.context["has_days_error"]) == (False, True)
    assert len(response.context["chart"]["buckets"]) == 7


def test_at_most_a_year_is_shown_and_odd_dates_are_no_error(page: Client, cast: Cast) -> None:
    happened(cast, backdated(an_event_of(cast), days=500))
    where, today = reverse("overview", args=[cast.slug]), now().date()
    query = {"range": "custom", "from": str(today - timedelta(days=400)), "to": str(today)}
    assert "Choose at most 366 days." in page.get(where, query).content.decode()
    query["from"] = str(today - timedelta(days=365))
    assert len(page.get(where, query).context["chart"]["buckets"]) == 366
    for odd in ("", "x", "0001-01-01", "9999-12-31", "2026-02-30", "٢٠٢٦-٠١-٠١"):
        assert page.get(where, {"range": "custom", "from": odd, "to": odd}).status_code == 200


def test_tables_are_sorted_by_the_url_and_have_totals(page: Client, cast: Cast) -> None:
    big = Usage(prompt_tokens=9000, completion_tokens=9000)
    happened(
        cast,
        an_event_of(cast, model="b-model"),
        an_event_of(cast, model="b-model", status=503, error_code="upstream_unavailable"),
        an_event_of(cast, model="a-model", usage=big),
        an_event_of(cast, model="c-model"),
    )
    where = reverse("overview", args=[cast.slug])

    def order(sort: str) -> list[str]:
        return [line["name"] for line in page.get(where, {"sort": sort}).context["breakdown"]]

    assert order("") == ["a-model", "b-model", "c-model"]
    assert order("-requests") == ["b-model", "a-model", "c-model"]
    assert order("name") == ["a-model", "b-model", "c-model"]
    assert order("-name") == ["c-model", "b-model", "a-model"]
    assert order("rate")[-1] == "b-model"
    text = page.get(where, {"sort": "-requests"}).content.decode()
    assert text.count('aria-sort="descending"') == 1
    assert "sort=requests" in text
    total = page.get(where).context["total"]
    assert (total.requests, total.errors, total.cost_nanos) == (
        4,
        1,
        sum(line["sums"].cost_nanos for line in page.get(where).context["breakdown"]),
    )
    assert "<tfoot>" in text
    newest = page.get(where, {"range": "7d", "time_sort": "-time"}).context["times"]
    assert [line["bucket"] for line in newest] == sorted((line["bucket"] for line in newest), reverse=True)
    by_p95 = page.get(where, {"range": "7d", "time_sort": "p95"}).context["times"]
    assert by_p95[0]["times"].p95 is not None


def test_the_table_over_time_is_drawn_when_it_is_opened(page: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast), backdated(an_event_of(cast), days=2))
    where, query = reverse("overview", args=[cast.slug]), {"range": "7d", "metric": "tokens"}
    closed = page.get(where, query).content.decode()
    assert 'id="times"' not in closed
    assert "metric=tokens&amp;group=model&amp;part=over-time" in closed
    table = page.get(where, {**query, "part": "over-time"}, headers=HTMX).content.decode()
    assert table.count("<tr>") == 1 + 7 + 1
    assert table.count('<a class="link-plain"') == 2
    assert "<html" not in table
    # Without scripts a link opens the page with the table, and so does sorting it.
    for order in ("time", "-cost"):
        text = page.get(where, {**query, "time_sort": order}).content.decode()
        assert text.partition('id="times"')[2].partition("</table>")[0].count("<td") == table.count("<td")


def test_tables_as_csv(page: Client, cast: Cast) -> None:
    event = an_event_of(cast, model="=cmd()", latency_ms=500)
    happened(cast, event, *(an_event_of(cast, model=f"m{n}") for n in range(13)))

    def lines(table: str, **query: str) -> list[dict[str, str]]:
        response = page.get(reverse("usage-csv", args=[cast.slug, table]), query)
        assert response["Content-Type"] == "text/csv; charset=utf-8"
        assert "attachment" in response["Content-Disposition"]
        return list(csv.DictReader(io.StringIO(response.content.decode())))

    groups = lines("groups", range="7d")
    assert len(groups) == 14, "smaller groups are not added up in a file"
    formula = next(line for line in groups if "cmd" in line["model"])
    assert formula["model"] == "'=cmd()"
    assert Decimal(formula["cost_usd"]) * 10**9 == event.cost_nanos
    (by_key,) = lines("groups", range="7d", group="key")
    assert (by_key["key"], by_key["name"], by_key["requests"]) == (str(cast.key.pk), "prod-web", "14")
    times = lines("times", range="7d")
    assert (len(times), times[-1]["requests"], times[-1]["error_rate"]) == (7, "14", "0.000000")
    assert times[0]["start"].endswith("Z")
    assert times[0]["error_rate"] == times[0]["latency_p95_ms"] == ""
    latency, first_token = lines("latency")
    assert (latency["measured"], first_token["measured"]) == ("latency", "first_token")
    assert page.get(reverse("usage-csv", args=[cast.slug, "nothing"])).status_code == 404


def test_the_csv_is_the_organizations_own(client: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    for table in ("groups", "times", "latency"):
        where = reverse("usage-csv", args=[cast.slug, table])
        client.force_login(cast.eve)
        assert client.get(where).status_code == 404
        client.force_login(cast.vic)
        assert client.get(where).status_code == 200
