"""Statements: they add up, and a closed month never changes."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.db.models import Sum
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import Organization, User
from billing.ledger import Charge, post_charges, post_credit
from billing.ledger_audit import audit_ledger
from billing.models import Account, LedgerEntry, ModelSpendDaily, PaperFile
from billing.papers.documents import statement_document
from billing.papers.selectors import statement_months, statement_of
from billing.papers.statement import (
    Booked,
    Entry,
    final_at,
    month_after,
    month_of,
    months_until,
    statement,
)
from billing.papers.tables import statement_csv
from billing.papers.tests.pdf_text import text_of
from billing.selectors import account_of
from billing.tasks import make_papers
from billing.tests.factories import an_organization
from codexflow.lib import clock
from codexflow.lib.ids import new_id, random_id
from tests.support.cast import Cast

OCTOBER, NOVEMBER, DECEMBER = date(2026, 10, 1), date(2026, 11, 1), date(2026, 12, 1)

days = st.dates(NOVEMBER, date(2026, 11, 30))
amounts = st.integers(-(10**15), 10**15)
kinds, models = st.sampled_from(["top_up", "expiry"]), st.sampled_from("ab")
entries = st.lists(st.builds(Entry, day=days, kind=kinds, note=st.just(""), amount_nanos=amounts))


def a_booking(day: date, usage_days: st.SearchStrategy[date]) -> st.SearchStrategy[Booked]:
    counts = st.integers(-2, 5)
    return st.builds(Booked, day=st.just(day), usage_day=usage_days, model=models, requests=counts, cost_nanos=amounts)


own = days.flatmap(lambda day: a_booking(day, st.just(day)))
late = days.flatmap(lambda day: a_booking(day, st.dates(date(2026, 8, 1), date(2026, 10, 31))))
untold_spend = st.dictionaries(days, amounts, max_size=4)


@given(opening=amounts, given_entries=entries, booked=st.lists(own | late), untold=untold_spend)
def test_a_statement_adds_up_to_the_nano(
    opening: int, given_entries: list[Entry], booked: list[Booked], untold: dict[date, int]
) -> None:
    spent: dict[date, int] = dict(untold)
    for each in booked:
        spent[each.day] = spent.get(each.day, 0) + each.cost_nanos
    shown = statement(NOVEMBER, opening_nanos=opening, entries=given_entries, booked=booked, spent=spent)
    by_model = sum(each.cost_nanos for each in shown.by_model.values())
    assert sum(each.cost_nanos for each in shown.by_day.values()) == by_model == shown.usage_nanos
    assert shown.usage_nanos + shown.late_nanos == sum(spent.values())
    assert shown.closing_nanos == opening + sum(each.amount_nanos for each in given_entries) - sum(spent.values())
    assert abs(shown.closing_cents * 10_000_000 - shown.closing_nanos) <= 5_000_000
    assert set(shown.by_model) <= {"a", "b", ""}
    if not untold:
        assert "" not in shown.by_model


def test_months_have_names_and_an_order() -> None:
    assert month_of("2026-11") == NOVEMBER
    for wrong in ("2026-13", "2026-1", "26-11", "2026-11-01", "x", "", "٢٠٢٦-١١", "2026-W11"):
        assert month_of(wrong) is None, wrong
    assert month_after(date(2026, 12, 1)) == date(2027, 1, 1)
    assert months_until(date(2026, 11, 30), date(2027, 1, 1)) == [date(2027, 1, 1), DECEMBER, NOVEMBER]
    assert final_at(NOVEMBER) == datetime(2026, 12, 2, 1, tzinfo=UTC)


class Clock:
    """The clock of the ledger, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = datetime(2026, 10, 5, 12, tzinfo=UTC)
        monkeypatch.setattr(clock, "now", lambda: self.at)

    def set(self, text: str) -> None:
        self.at = datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def organization(db: None, wall: Clock) -> Organization:
    organization = an_organization(plan="pro")
    Account.objects.filter(pk=organization.pk).update(opened_at=wall.at)
    return organization


def used(organization: Organization, day: date, nanos: int, model: str = "a", **facts: Any) -> UUID:
    request_id: UUID = facts.pop("request_id", None) or new_id()
    known = {"revision": 1, "hold_nanos": 0, "is_correction": False, "key_id": random_id(), "model": model}
    post_charges(
        [
            Charge(
                organization_id=organization.pk,
                request_id=request_id,
                day=day,
                amount_nanos=nanos,
                **{**known, **facts},
            )
        ]
    )
    return request_id


def settled(organization: Organization, month: date) -> int:
    """Cost of requests that the ledger booked in the month."""
    rows = LedgerEntry.objects.filter(organization=organization, day__gte=month, day__lt=month_after(month))
    return -int(rows.exclude(request_id=None).aggregate(sum=Sum("amount_nanos"))["sum"] or 0)


def test_each_month_opens_with_what_the_one_before_closed_with(organization: Organization, wall: Clock) -> None:
    opened = account_of(organization).credit_nanos
    used(organization, date(2026, 10, 1), 7)
    used(organization, date(2026, 10, 31), 1_234_567_891, "b")
    wall.set("2026-11-10T00:00:00")
    post_credit(organization, 25_000_000_000, kind=LedgerEntry.Kind.TOP_UP, reference="a", note="Order X")
    post_credit(organization, -1, kind=LedgerEntry.Kind.ADJUSTMENT, reference="b")
    used(organization, date(2026, 11, 1), 11)
    used(organization, date(2026, 11, 9), 13, "b")
    wall.set("2026-12-01T00:00:00")
    used(organization, date(2026, 12, 1), 17)
    shown = [statement_of(organization, month) for month in (OCTOBER, NOVEMBER, DECEMBER)]
    assert [each.opening_nanos for each in shown] == [0, shown[0].closing_nanos, shown[1].closing_nanos]
    assert shown[0].closing_nanos == opened - 7 - 1_234_567_891
    assert shown[1].by_kind == {"top_up": 25_000_000_000, "adjustment": -1}
    assert [(usage.requests, usage.cost_nanos) for usage in shown[1].by_day.values()] == [(1, 11), (1, 13)]
    assert list(shown[1].by_model) == ["a", "b"]
    assert shown[2].closing_nanos == account_of(organization).balance_nanos
    for each in shown:
        assert each.usage_nanos + each.late_nanos == settled(organization, each.month)
        assert sum(usage.cost_nanos for usage in each.by_model.values()) == each.usage_nanos
        assert "" not in each.by_model
    assert audit_ledger() == []


@pytest.mark.parametrize(("at", "month"), [("2026-12-01T23:59:59", NOVEMBER), ("2026-12-02T00:00:00", DECEMBER)])
def test_the_last_moment_and_the_first_are_of_different_months(
    organization: Organization, wall: Clock, at: str, month: date
) -> None:
    """MON-34: usage of the last day is booked in its month until that is closed."""
    wall.set(at)
    used(organization, date(2026, 11, 30), 100)
    booked = {each: settled(organization, each) for each in (NOVEMBER, DECEMBER)}
    assert booked == {NOVEMBER: 0, DECEMBER: 0, month: 100}
    shown = statement_of(organization, month)
    assert (shown.usage_nanos, shown.late_nanos) == ((100, 0) if month == NOVEMBER else (0, 100))


def test_usage_at_the_very_start_of_a_month_is_of_that_month(organization: Organization, wall: Clock) -> None:
    wall.set("2026-11-01T00:00:00")
    used(organization, NOVEMBER, 5)
    assert statement_of(organization, OCTOBER).usage_nanos == 0
    assert statement_of(organization, NOVEMBER).usage_nanos == 5


def test_a_closed_month_never_changes(organization: Organization, wall: Clock) -> None:
    """Late usage and corrections are lines of the month in which they are booked, named by their own month."""
    wall.set("2026-10-20T00:00:00")
    corrected, moved = used(organization, date(2026, 10, 20), 1_000), used(organization, date(2026, 10, 20), 500)
    wall.set("2026-11-02T01:00:00")
    assert wall.at >= final_at(OCTOBER)
    before = statement_of(organization, OCTOBER)
    file_before = statement_csv(before)
    wall.set("2026-11-15T00:00:00")
    used(organization, date(2026, 10, 31), 70, "b")
    again: dict[str, Any] = {"revision": 2, "is_correction": True}
    used(organization, date(2026, 10, 20), -400, request_id=corrected, **again)
    used(organization, date(2026, 10, 20), 0, "b", request_id=moved, model_before="a", cost_before_nanos=500, **again)
    post_credit(organization, 3, kind=LedgerEntry.Kind.PROMO, reference="x")
    assert statement_of(organization, OCTOBER) == before
    assert statement_csv(statement_of(organization, OCTOBER)) == file_before
    november = statement_of(organization, NOVEMBER)
    assert november.usage_nanos == 0
    assert {name: (usage.requests, usage.cost_nanos) for name, usage in november.late.items()} == {
        (OCTOBER, "a"): (-1, -900),
        (OCTOBER, "b"): (2, 570),
    }
    assert november.opening_nanos == before.closing_nanos
    assert november.closing_nanos == account_of(organization).balance_nanos
    text = str(statement_document(november, "Org", is_final=False, at=wall.at))
    assert "October 2026" in text


def test_a_better_report_of_an_open_month_moves_usage_between_models(organization: Organization, wall: Clock) -> None:
    wall.set("2026-11-03T00:00:00")
    request = used(organization, date(2026, 11, 3), 100)
    better: dict[str, Any] = {"revision": 2, "is_correction": True, "model_before": "a", "cost_before_nanos": 100}
    used(organization, date(2026, 11, 3), 20, "b", request_id=request, **better)
    shown = statement_of(organization, NOVEMBER)
    assert {name: (usage.requests, usage.cost_nanos) for name, usage in shown.by_model.items()} == {"b": (1, 120)}
    assert shown.usage_nanos == settled(organization, NOVEMBER) == 120


def test_usage_that_was_booked_before_models_were_is_shown_without_one(organization: Organization, wall: Clock) -> None:
    wall.set("2026-11-03T00:00:00")
    used(organization, date(2026, 11, 2), 100)
    ModelSpendDaily.objects.all().delete()
    used(organization, date(2026, 11, 2), 20)
    shown = statement_of(organization, NOVEMBER)
    assert {name: usage.cost_nanos for name, usage in shown.by_model.items()} == {"": 100, "a": 20}
    assert shown.usage_nanos == 120


def test_the_csv_adds_up(organization: Organization, wall: Clock) -> None:
    used(organization, date(2026, 10, 2), 1_234_567_891)
    post_credit(organization, 9, kind=LedgerEntry.Kind.PROMO, reference="x", note="=cmd")
    rows = [line.split(",") for line in statement_csv(statement_of(organization, OCTOBER)).decode().splitlines()]
    amounts = [(row[0], int(row[-2].replace(".", ""))) for row in rows[1:]]
    closing = sum(nanos for section, nanos in amounts if section in ("opening", "entry", "usage_day", "usage_late"))
    assert [nanos for section, nanos in amounts if section == "closing"] == [closing]
    assert "'=cmd" in str(rows)
    assert account_of(organization).balance_nanos == closing


def test_a_statement_says_what_was_spent_by_tag(organization: Organization, wall: Clock) -> None:
    """Late usage is in the month of its booking, as everywhere; what has no tag makes the sum whole."""
    used(organization, date(2026, 10, 2), 100, tag="team/a")
    used(organization, date(2026, 10, 3), 30)
    wall.set("2026-11-05")
    used(organization, date(2026, 11, 4), 7, tag="team/b")
    used(organization, date(2026, 10, 31), 5, tag="team/a")
    october, november = (statement_of(organization, each) for each in (OCTOBER, NOVEMBER))
    assert {tag: (each.requests, each.cost_nanos) for tag, each in october.by_tag.items()} == {"team/a": (1, 100)}
    assert (october.untagged.requests, october.untagged.cost_nanos) == (1, 30)
    assert {tag: each.cost_nanos for tag, each in november.by_tag.items()} == {"team/b": 7, "team/a": 5}
    assert november.untagged.cost_nanos == 0
    lines = statement_csv(november).decode().splitlines()
    assert [line for line in lines if line.startswith("usage_tag")] == [
        "usage_tag,,,,,,1,-0.000000007,team/b",
        "usage_tag,,,,,,1,-0.000000005,team/a",
    ]
    assert audit_ledger() == []


def test_statements_begin_with_the_account(organization: Organization, wall: Clock) -> None:
    assert statement_months(organization, date(2026, 12, 31)) == [DECEMBER, NOVEMBER, OCTOBER]


def test_a_statement_reads_no_log_table(organization: Organization) -> None:
    with CaptureQueriesContext(connection) as queries:
        statement_of(organization, OCTOBER)
    tables = set(re.findall(r'FROM "(\w+)"', " ".join([query["sql"] for query in queries])))
    assert tables == {
        "billing_spend_daily",
        "billing_ledgerentry",
        "billing_model_spend_daily",
        "billing_tag_spend_daily",
    }
    assert len(queries) < 10


def test_pages_of_a_statement(client: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    today = clock.now().date()
    past = (today.replace(day=1) - timedelta(days=40)).replace(day=1)
    opened = datetime.combine(past, datetime.min.time(), UTC)
    Account.objects.filter(pk=cast.organization.pk).update(opened_at=opened)
    client.force_login(cast.ada)
    listed = client.get(reverse("papers", args=[cast.slug])).content.decode()
    present, closed = f"{today:%Y-%m}", f"{past:%Y-%m}"
    for month in (present, closed):
        assert reverse("statement", args=[cast.slug, month]) in listed
    used(cast.organization, today, 1_000_000)
    shown = client.get(reverse("statement", args=[cast.slug, present])).content.decode()
    assert "Preliminary" in shown
    assert "Usage by model" in shown
    assert "Make the PDF" not in shown
    assert client.get(reverse("statement-csv", args=[cast.slug, present])).content.startswith(b"section,")
    # The present month is not printed: it still changes.
    assert client.post(reverse("statement-pdf", args=[cast.slug, present])).status_code == 302
    assert not PaperFile.objects.exists()
    page, file = (reverse(name, args=[cast.slug, closed]) for name in ("statement", "statement-pdf"))
    assert "Make the PDF" in client.get(page).content.decode()
    assert client.get(file).status_code == 404
    assert [client.post(file).status_code for _ in range(2)] == [302, 302]
    assert "being made" in client.get(page).content.decode()
    assert make_papers() == "made 1, mailed 0"
    assert file in client.get(page, headers={"hx-request": "true"}).content.decode()
    assert "Final" in text_of(client.get(file).content)
    User.objects.filter(pk=cast.ada.pk).update(language="tr")
    client.force_login(User.objects.get(pk=cast.ada.pk))
    assert "Hesap özeti" in client.get(page).content.decode()
    for wrong in ("2020-01", "2999-01", "2026-13", "x"):
        assert client.get(reverse("statement", args=[cast.slug, wrong])).status_code == 404
    client.force_login(cast.eve)
    assert client.get(page).status_code == 404
    assert client.get(file).status_code == 404
