"""Operator pages: access, permissions, audit entries and capped counts."""

import io
import re
import zipfile
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.contrib.admin.utils import flatten_fieldsets
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import translation
from django.utils.functional import Promise

from accounts.audit import labels
from accounts.models import AuditEntry, User
from billing.forms import AccountEditForm, BookingForm
from billing.ledger import post_credit
from billing.ledger_audit import audit_ledger
from billing.models import CreditSource, LedgerEntry, Order, Paper, Plan
from billing.papers.issue import issue_credit_note
from billing.papers.tests.scene import an_invoice, with_seller
from billing.payments.orders import cancel_order, open_order, settle_order
from billing.selectors import account_of
from codexflow import urls
from codexflow.catalogue.models import ConfigVersion
from codexflow.lib.admin import site, usd_column
from keys.models import ApiKey
from logs.models import RequestLog
from tests.support.cast import Cast, an_event_of, happened

# Importing the routes registers the admin pages.
assert urls.urlpatterns
MODELS = sorted(site._registry, key=lambda model: model._meta.label)


def changelist(model: Any) -> str:
    return f"/ops/{model._meta.app_label}/{model._meta.model_name}/"


@pytest.fixture
def root(db: None) -> User:
    return User.objects.create_superuser("root@example.org")


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_user("admin@example.org", role=User.Role.ADMIN)


def test_visitors_are_sent_to_sign_in_and_users_get_403(client: Client, cast: Cast) -> None:
    assert client.get("/ops/accounts/user/")["Location"] == "/ops/login/?next=/ops/accounts/user/"
    assert client.get("/ops/login/?next=/ops/")["Location"].startswith("/accounts/login/")
    client.force_login(cast.ada)
    assert client.get("/ops/accounts/user/", follow=True).status_code == 403


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_both_operator_roles_open_every_page(client: Client, cast: Cast, root: User, admin: User, model: Any) -> None:
    happened(cast, an_event_of(cast))
    for person in (root, admin):
        client.force_login(person)
        assert client.get(changelist(model)).status_code == 200
        assert client.get(changelist(model), {"q": "nothing"}).status_code == 200
        first = model.objects.first()
        if first is not None:
            # A request's row leads to its page.
            response = client.get(f"{changelist(model)}{first.pk}/change/", follow=model is RequestLog)
            assert response.status_code == 200
            assert ('name="_save"' in response.content.decode()) is (
                person is root and site._registry[model].has_change_permission(response.wsgi_request)
            )


def test_an_administrator_acts_on_customers_and_changes_neither_plans_nor_money(
    client: Client, cast: Cast, admin: User
) -> None:
    client.force_login(admin)
    plan = Plan.objects.get(slug="pro")
    assert client.post(f"/ops/billing/plan/{plan.pk}/change/", {"name": "x"}).status_code == 403
    assert client.get("/ops/billing/ledgerentry/add/").status_code == 403
    chosen = {"action": "revoke", "_selected_action": [str(cast.key.pk)]}
    client.post("/ops/keys/apikey/", chosen)
    assert ApiKey.objects.get(pk=cast.key.pk).revoked_at is not None


def test_the_tables_of_operators_ask_for_a_second_factor_in_production(
    client: Client, cast: Cast, root: User, settings: Any
) -> None:
    settings.OPERATORS_NEED_SECOND_FACTOR = True
    client.force_login(root)
    assert client.get("/ops/accounts/user/")["Location"] == "/accounts/2fa/"
    Authenticator.objects.create(user=root, type=Authenticator.Type.TOTP, data={})
    assert client.get("/ops/accounts/user/").status_code == 200


def test_revoking_keys_is_audited(client: Client, cast: Cast, root: User) -> None:
    client.force_login(root)
    client.post("/ops/keys/apikey/", {"action": "revoke", "_selected_action": [str(cast.key.pk)]})
    assert ApiKey.objects.get(pk=cast.key.pk).revoked_at is not None
    assert AuditEntry.objects.get(action="key.revoked").actor == root


def test_changing_a_user_is_audited_without_personal_values(client: Client, cast: Cast, root: User) -> None:
    client.force_login(root)
    form = {"email": cast.ben.email, "name": "Benjamin", "role": "USER", "language": "en", "timezone": "UTC"}
    assert client.post(f"/ops/accounts/user/{cast.ben.pk}/change/", form).status_code == 302
    cast.ben.refresh_from_db()
    assert (cast.ben.name, cast.ben.is_active) == ("Benjamin", False)
    # The fields without personal values: entries cannot be changed when the user is deleted.
    fields = AuditEntry.objects.get(action="user.changed").facts["fields"]
    assert (fields["name"], fields["is_active"]) == (None, "False")


def test_changing_a_membership_is_audited_by_ids(client: Client, cast: Cast, root: User) -> None:
    client.force_login(root)
    form = {"user": cast.eve.pk, "organization": cast.organization.pk, "role": "viewer"}
    assert client.post("/ops/accounts/membership/add/", form).status_code == 302
    entry = AuditEntry.objects.get(action="membership.created")
    assert entry.facts["fields"]["user"] == str(cast.eve.pk)
    assert cast.eve.email not in str(entry.facts)


def test_an_edited_account_keeps_what_the_ledger_books_meanwhile(
    client: Client, cast: Cast, root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def books_credit(_form: AccountEditForm) -> None:
        post_credit(cast.organization, 7, kind=LedgerEntry.Kind.PROMO, reference="meanwhile", note="")

    monkeypatch.setattr(AccountEditForm, "clean", books_credit)
    client.force_login(root)
    account = account_of(cast.organization)
    form = {"plan": Plan.objects.get(slug="pro").pk, "budget_day_nanos": "5"}
    assert client.post(f"/ops/billing/account/{account.pk}/change/", form).status_code == 302
    edited = account_of(cast.organization)
    assert (edited.plan.slug, edited.budget_day_nanos) == ("pro", 5_000_000_000)
    assert edited.credit_nanos == account.credit_nanos + 7
    assert audit_ledger() == []


@pytest.mark.parametrize("model", [AuditEntry, LedgerEntry])
@pytest.mark.django_db
def test_audit_log_and_ledger_cannot_be_truncated(model: Any) -> None:
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL codexflow.may_empty = off")
        with pytest.raises(DatabaseError, match=f"{table} is append-only"), transaction.atomic():
            cursor.execute(f"TRUNCATE {table} CASCADE")


def test_no_page_shows_a_secret(client: Client, cast: Cast, root: User) -> None:
    client.force_login(root)
    text = client.get(f"/ops/keys/apikey/{cast.key.pk}/change/").content.decode()
    assert "digest" not in text
    assert bytes(cast.key.digest).hex() not in text


def test_the_request_log_is_never_counted_in_full(client: Client, cast: Cast, root: User) -> None:
    client.force_login(root)
    happened(cast, *(an_event_of(cast) for _ in range(3)))
    with CaptureQueriesContext(connection) as queries:
        client.get("/ops/logs/requestlog/")
        client.get("/ops/logs/requestlog/", {"q": str(cast.organization.pk)})
    asked = [each["sql"] for each in queries.captured_queries if "request_log" in each["sql"]]
    assert asked
    assert not [sql for sql in asked if "COUNT(" in sql.upper()]


def booking(cast: Cast, **changes: Any) -> dict[str, Any]:
    form = {
        "organization": str(cast.organization.pk),
        "kind": "top_up",
        "amount_usd": "20",
        "reference": "transfer 4711",
        "note": "Bank transfer of 27 November",
        "expires_at_0": "",
        "expires_at_1": "",
    }
    return {**form, **changes}


def test_an_operator_books_a_payment_once_after_seeing_what_it_does(client: Client, cast: Cast, root: User) -> None:
    client.force_login(root)
    account = cast.organization.account
    add = f"{changelist(LedgerEntry)}add/"
    before = LedgerEntry.objects.count()
    page = client.post(add, booking(cast))
    assert "$0.500000 and will be $20.500000" in page.content.decode()
    assert LedgerEntry.objects.count() == before
    assert client.post(add, booking(cast, is_confirmed="on")).status_code == 302
    account.refresh_from_db()
    assert account.balance_nanos == 20_500_000_000
    source = CreditSource.objects.order_by("-pk")[0]
    assert (source.kind, source.remaining_nanos) == ("paid", 20_000_000_000)
    entry = AuditEntry.objects.get(action="credit.booked")
    assert (entry.actor, entry.facts["reason"]) == (root, "Bank transfer of 27 November")
    again = client.post(add, booking(cast, is_confirmed="on"))
    assert "booked already" in again.content.decode()
    assert LedgerEntry.objects.count() == before + 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"amount_usd": "-5"}, "above zero"),
        ({"amount_usd": "0"}, "above zero"),
        ({"reference": ""}, "has a reference"),
        ({"note": ""}, "required"),
        ({"kind": "settle"}, "valid choice"),
        ({"expires_at_0": "2020-01-01", "expires_at_1": "00:00"}, "in the future"),
    ],
)
def test_a_booking_that_makes_no_sense_is_refused(
    client: Client, cast: Cast, root: User, changes: dict[str, str], said: str
) -> None:
    client.force_login(root)
    before = LedgerEntry.objects.count()
    page = client.post(f"{changelist(LedgerEntry)}add/", booking(cast, is_confirmed="on", **changes))
    assert said in page.content.decode()
    assert LedgerEntry.objects.count() == before


def test_only_a_super_administrator_books(client: Client, cast: Cast, admin: User) -> None:
    client.force_login(admin)
    response = client.post(f"{changelist(LedgerEntry)}add/", booking(cast, is_confirmed="on"))
    assert response.status_code == 403


def test_an_operator_records_a_payment_once_after_seeing_what_it_does(client: Client, cast: Cast, root: User) -> None:
    order = open_order(cast.organization, provider="manual", plan=Plan.objects.get(slug="pro"))
    client.force_login(root)
    where = f"{changelist(Order)}{order.pk}/change/"
    listed = client.get(changelist(Order), {"state__exact": "open"}).content.decode()
    assert order.code in listed
    assert 'name="payment_reference"' in client.get(where).content.decode()
    form = {"payment_reference": "transfer 4711", "reason": "Statement of 27 November"}
    page = client.post(where, form).content.decode()
    assert "$0.500000 and will be $45.500000. The plan is Free and will be Pro." in page
    assert not LedgerEntry.objects.filter(reference=f"order:{order.code}").exists()
    assert client.post(where, {**form, "is_confirmed": "on"}).status_code == 302
    account = account_of(cast.organization)
    assert (account.balance_nanos, account.plan.slug) == (45_500_000_000, "pro")
    entry = AuditEntry.objects.get(action="order.paid")
    assert (entry.actor, entry.facts["reason"]) == (root, "Statement of 27 November")
    for again in (form, {**form, "is_confirmed": "on"}, {**form, "payment_reference": "transfer 4712"}):
        said = client.post(where, again, follow=True).content.decode()
        assert "already paid by payment transfer 4711" in said
        assert 'name="payment_reference"' not in said
    assert account_of(cast.organization).balance_nanos == account.balance_nanos
    assert order.code not in client.get(changelist(Order), {"state__exact": "open"}).content.decode()
    assert audit_ledger() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"payment_reference": ""}, "required"),
        ({"reason": ""}, "required"),
        ({"payment_reference": "by order"}, "booked already"),
        ({"payment_reference": "by hand"}, "booked already"),
    ],
)
def test_a_payment_without_its_facts_or_of_something_else_is_refused(
    client: Client, cast: Cast, root: User, changes: dict[str, str], said: str
) -> None:
    earlier, order = (open_order(cast.organization, provider="manual", amount_nanos=10**10) for _ in range(2))
    settle_order(earlier, payment_reference="by order")
    client.force_login(root)
    client.post(f"{changelist(LedgerEntry)}add/", booking(cast, reference="by hand", is_confirmed="on"))
    form = {"payment_reference": "transfer 1", "reason": "Statement", "is_confirmed": "on", **changes}
    assert said in client.post(f"{changelist(Order)}{order.pk}/change/", form).content.decode()
    order.refresh_from_db()
    assert order.is_open


def test_what_settled_an_order_is_not_booked_by_hand_as_well(client: Client, cast: Cast, root: User) -> None:
    order = open_order(cast.organization, provider="manual", amount_nanos=10**10)
    settle_order(order, payment_reference="transfer 4711")
    client.force_login(root)
    page = client.post(f"{changelist(LedgerEntry)}add/", booking(cast, is_confirmed="on"))
    assert "booked already" in page.content.decode()


def test_an_order_that_is_settled_meanwhile_is_refused_with_words(
    client: Client, cast: Cast, root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = open_order(cast.organization, provider="manual", amount_nanos=10**10)

    def settled_by_another(this: Order, **facts: Any) -> Order:
        settle_order(this, payment_reference="the other's")
        return settle_order(this, **facts)

    monkeypatch.setattr("billing.admin.settle_order", settled_by_another)
    client.force_login(root)
    form = {"payment_reference": "transfer 1", "reason": "Statement", "is_confirmed": "on"}
    said = client.post(f"{changelist(Order)}{order.pk}/change/", form, follow=True).content.decode()
    assert "already paid by payment" in said


def test_a_payment_of_a_cancelled_order_is_refused_with_words(client: Client, cast: Cast, root: User) -> None:
    order = cancel_order(open_order(cast.organization, provider="manual", amount_nanos=10**10))
    client.force_login(root)
    form = {"payment_reference": "transfer 1", "reason": "Statement", "is_confirmed": "on"}
    said = client.post(f"{changelist(Order)}{order.pk}/change/", form, follow=True).content.decode()
    assert "This order is cancelled." in said


def test_only_a_super_administrator_records_payments(client: Client, cast: Cast, admin: User) -> None:
    order = open_order(cast.organization, provider="manual", amount_nanos=10**10)
    client.force_login(admin)
    where = f"{changelist(Order)}{order.pk}/change/"
    page = client.get(where)
    assert order.code in page.content.decode()
    assert 'name="payment_reference"' not in page.content.decode()
    form = {"payment_reference": "transfer 1", "reason": "Statement", "is_confirmed": "on"}
    assert client.post(where, form).status_code == 403
    order.refresh_from_db()
    assert order.is_open


def test_a_super_administrator_issues_a_credit_note_after_seeing_what_is_left(
    client: Client, cast: Cast, root: User, admin: User, settings: Any
) -> None:
    settings.ENV = with_seller()
    invoice = an_invoice(cast.organization)
    where = f"/ops/billing/paper/{invoice.pk}/change/"
    typed = {"amount": "10.00", "credit_reason": "Unused"}
    client.force_login(admin)
    assert client.post(where, {**typed, "is_confirmed": "on"}).status_code == 403
    client.force_login(root)
    assert "25.00 USD are left, and 15.00 USD after it" in client.post(where, typed).content.decode()
    assert Paper.objects.filter(kind="credit_note").count() == 0
    assert client.post(where, {**typed, "is_confirmed": "on"}).status_code == 302
    note = Paper.objects.get(kind="credit_note")
    assert (note.total_cents, note.reason, note.corrects) == (1000, "Unused", invoice)
    assert AuditEntry.objects.get(action="paper.credited").actor == root
    too_much = client.post(where, {**typed, "amount": "15.01", "is_confirmed": "on"}).content.decode()
    assert "15.00 USD can be taken back" in too_much
    client.post(where, {**typed, "amount": "15.00", "is_confirmed": "on"})
    assert 'name="_save"' not in client.get(where).content.decode()
    assert 'name="_save"' not in client.get(f"/ops/billing/paper/{note.pk}/change/").content.decode()


def key_of(page: Any, name: str) -> str:
    """Value of a hidden field of an operators' form."""
    (found,) = re.findall(rf'<input type="hidden" name="{name}" value="([^"]+)"', page.content.decode())
    return str(found)


def test_a_credit_note_that_is_sent_twice_is_one(client: Client, cast: Cast, root: User, settings: Any) -> None:
    settings.ENV = with_seller()
    invoice = an_invoice(cast.organization)
    where = f"/ops/billing/paper/{invoice.pk}/change/"
    client.force_login(root)
    typed = {"amount": "10.00", "credit_reason": "Unused", "left_cents": key_of(client.get(where), "left_cents")}
    client.post(where, {**typed, "is_confirmed": "on"})
    again = client.post(where, {**typed, "is_confirmed": "on"}, follow=True)
    assert "was issued meanwhile" in again.content.decode()
    assert Paper.objects.filter(kind="credit_note").count() == 1


@pytest.mark.parametrize("kind", ["promo", "adjustment"])
def test_a_booking_without_a_reference_that_is_sent_twice_is_one(
    client: Client, cast: Cast, root: User, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.force_login(root)
    add = f"{changelist(LedgerEntry)}add/"
    form = booking(cast, kind=kind, reference="", is_confirmed="on", key=key_of(client.get(add), "key"))
    assert client.post(add, form).status_code == 302
    assert "booked already" in client.post(add, form).content.decode()
    # Two at once: the form of the second was checked before the first was booked.
    monkeypatch.setattr(BookingForm, "clean", lambda form: form.cleaned_data)
    assert "booked already" in client.post(add, form, follow=True).content.decode()
    assert LedgerEntry.objects.filter(kind=kind).count() == 1
    assert audit_ledger() == []


def test_an_operator_downloads_invoices_as_ubl_tr(client: Client, cast: Cast, admin: User, settings: Any) -> None:
    settings.ENV = with_seller()
    papers = [an_invoice(cast.organization) for _ in range(2)]
    client.force_login(admin)
    chosen = {"action": "export_ubl", "_selected_action": [str(each.pk) for each in papers]}
    asked = client.post("/ops/billing/paper/", chosen).content.decode()
    assert papers[0].number in asked
    refused = client.post("/ops/billing/paper/", {**chosen, "profile": "EARSIVFATURA"}, follow=True)
    assert "exchange rate" in refused.content.decode()
    typed = {**chosen, "profile": "EARSIVFATURA", "rate": "34.5"}
    with zipfile.ZipFile(io.BytesIO(client.post("/ops/billing/paper/", typed).content)) as archive:
        assert len(archive.namelist()) == 2
        assert b"EARSIVFATURA" in archive.read(archive.namelist()[0])
    note = issue_credit_note(papers[0], 100, reason="x")
    typed["_selected_action"] = [str(note.pk)]
    assert "no invoice" in client.post("/ops/billing/paper/", typed, follow=True).content.decode()


def test_prices_that_are_put_in_force_by_a_command_are_audited(db: None, settings: Any) -> None:
    call_command("catalogue", "apply", str(settings.ENV.config_path), "--note", "Spring", stdout=io.StringIO())
    applied = ConfigVersion.objects.latest("pk")
    call_command("catalogue", "rollback", str(applied.pk), stdout=io.StringIO())
    entries = AuditEntry.objects.order_by("pk").values_list("action", "actor_label", "object_id", "facts")
    assert list(entries) == [
        ("catalogue.applied", "command line", str(applied.pk), {"note": "Spring"}),
        ("catalogue.rolled_back", "command line", str(ConfigVersion.objects.latest("pk").pk), {"to": applied.pk}),
    ]


@pytest.mark.parametrize(("language", "said"), [("en", "-1234.500000"), ("tr", "-1234,500000")])
def test_an_amount_has_the_decimal_sign_of_the_language(language: str, said: str) -> None:
    with translation.override(language):
        assert usd_column(-1_234_500_000_000) == said


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_tables_have_the_theme_of_the_other_pages(client: Client, root: User, theme: str) -> None:
    client.force_login(root)
    client.cookies["theme"] = theme
    assert f'class="{theme}"' in client.get("/ops/accounts/user/").content.decode()


def test_the_audit_log_is_in_words(client: Client, cast: Cast, root: User) -> None:
    client.force_login(root)
    client.post(f"/ops/customers/{cast.organization.pk}/suspend/", {"reason": "Unpaid since June"})
    page = client.get("/ops/accounts/auditentry/").content.decode()
    assert str(labels()["organization.suspended"]) in page
    assert ">organization.suspended<" not in page
    entry = AuditEntry.objects.get(action="organization.suspended")
    assert str(entry).endswith(" organization.suspended"), "its title has no id"
    assert "organization.suspended" in client.get(f"/ops/accounts/auditentry/{entry.pk}/change/").content.decode()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_every_column_and_fact_has_a_translated_name(rf: RequestFactory, root: User, model: Any) -> None:
    page, request = site._registry[model], rf.get("/")
    request.user = root
    shown = {*page.list_display, *flatten_fieldsets(page.get_fieldsets(request, model()))}
    named = {field.name: field.verbose_name for field in model._meta.fields}
    words = [name for name, said in named.items() if name in shown - {"id"} and not isinstance(said, Promise)]
    assert words == [] or model is RequestLog, "its rows are shown on another page"
