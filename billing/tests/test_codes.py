"""Codes for credit and discounts: used once by each organization and person."""

from collections import Counter
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import AuditEntry, Organization, User
from accounts.tests.factories import a_user
from billing.codes import CodeRefused, make_codes, normalized, redeem
from billing.ledger_audit import audit_ledger
from billing.models import CreditCode, CreditSource, LedgerEntry, Order, Plan, Redemption
from billing.payments.orders import cancel_order, open_order, settle_order
from billing.plans import CENT_NANOS, LEAST_CHARGE_NANOS, discount_nanos
from billing.selectors import account_of
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.money import NANOS_PER_USD
from tests.support.cast import Cast

pytestmark = pytest.mark.django_db
USD = NANOS_PER_USD


def a_code(**facts: Any) -> CreditCode:
    return CreditCode.objects.create(**{"code": "SPRING-26", "credit_nanos": 5 * USD, **facts})


def owner_of(organization: Organization) -> User:
    return organization.memberships.get(role="owner").user


@pytest.mark.parametrize("typed", ["SPRING-26", "spring 26", "  Spring-26 ", "spring - 26"])
def test_a_code_is_known_however_it_is_typed(typed: str) -> None:
    assert normalized(typed) == "SPRING-26"


def test_a_code_gives_promotional_credit_that_expires() -> None:
    code = a_code(credit_days=30)
    organization = an_organization(plan="free")
    before = account_of(organization).balance_nanos
    entry = redeem("spring 26", organization, owner_of(organization))
    source = CreditSource.objects.order_by("-pk")[0]
    assert (entry.kind, source.kind, source.remaining_nanos) == ("promo", "promotional", 5 * USD)
    assert source.expires_at is not None
    assert timedelta(days=29) < source.expires_at - now() <= timedelta(days=30)
    assert account_of(organization).balance_nanos == before + 5 * USD
    code.refresh_from_db()
    assert code.redemptions == 1
    # The code itself is worth money: the audit log does not have it.
    assert "SPRING" not in str(AuditEntry.objects.get(action="credit.redeemed").facts)
    assert audit_ledger() == []


def test_each_organization_and_each_person_redeems_a_code_once() -> None:
    a_code()
    organization = an_organization(plan="free")
    ada = owner_of(organization)
    redeem("SPRING-26", organization, ada)
    with pytest.raises(CodeRefused, match="already"):
        redeem("SPRING-26", organization, ada)
    with pytest.raises(CodeRefused, match="already"):  # another organization of hers
        redeem("SPRING-26", an_organization(owner=ada, plan="free"), ada)
    with pytest.raises(CodeRefused, match="already"):  # somebody else of the same organization
        redeem("SPRING-26", organization, a_user())


def test_a_person_is_known_by_the_mailbox_after_the_account_is_deleted() -> None:
    """MON-09."""
    a_code()
    first = an_organization(owner=User.objects.create_user("ada@example.org"), plan="free")
    redeem("SPRING-26", first, owner_of(first))
    User.objects.filter(email="ada@example.org").update(email="deleted@example.invalid")
    again = an_organization(owner=User.objects.create_user("Ada+again@example.org"), plan="free")
    with pytest.raises(CodeRefused, match="already"):
        redeem("SPRING-26", again, owner_of(again))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"is_active": False}, "exist"),
        ({"valid_until": now() - timedelta(seconds=1)}, "expired"),
        ({"max_redemptions": 3, "redemptions": 3}, "used up"),
    ],
)
def test_a_code_that_is_over_gives_nothing(facts: dict[str, Any], said: str) -> None:
    a_code(**facts)
    organization = an_organization(plan="free")
    before = LedgerEntry.objects.count()
    with pytest.raises(CodeRefused, match=said):
        redeem("SPRING-26", organization, owner_of(organization))
    assert LedgerEntry.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_fifty_at_once_redeem_a_code_as_often_as_it_may_be() -> None:
    """MON-08."""
    a_code(max_redemptions=7)
    organizations = [an_organization(plan="free") for _ in range(50)]
    found: list[str] = []

    def attempt(organization: Organization) -> None:
        try:
            redeem("SPRING-26", organization, owner_of(organization))
            found.append("given")
        except CodeRefused:
            found.append("refused")
        finally:
            connections.close_all()

    threads = [Thread(target=attempt, args=(each,)) for each in organizations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(found) == {"given": 7, "refused": 43}
    assert (Redemption.objects.count(), CreditCode.objects.get().redemptions) == (7, 7)
    assert audit_ledger() == []


def test_random_codes_are_for_one_redemption_each() -> None:
    made = make_codes(100, credit_nanos=USD, batch="reseller 7")
    assert len({each.code for each in made}) == 100
    assert {(each.max_redemptions, each.batch) for each in made} == {(1, "reseller 7")}
    assert all(normalized(each.code) == each.code for each in made)


def test_a_customer_redeems_a_code_on_the_billing_page(client: Client, cast: Cast) -> None:
    a_code()
    client.force_login(cast.ada)
    address = reverse("redeem-code", args=[cast.organization.slug])
    wrong = client.post(address, {"code": "nothing"})
    assert (wrong.status_code, "That code doesn&#x27;t exist." in wrong.content.decode()) == (422, True)
    page = client.post(address, {"code": "spring-26"}, follow=True)
    assert "$5.00 of credit added." in page.content.decode()
    assert client.post(address, {"code": "spring-26"}).status_code == 422


def test_codes_can_be_tried_a_few_times_an_hour(client: Client, cast: Cast, settings: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"redeem_code": "3/h/user"}
    a_code()
    client.force_login(cast.ada)
    address = reverse("redeem-code", args=[cast.organization.slug])
    for _ in range(3):
        assert "t exist" in client.post(address, {"code": "guess"}).content.decode()
    assert "Too many attempts" in client.post(address, {"code": "spring-26"}).content.decode()
    assert not Redemption.objects.exists()


def test_an_operator_makes_a_batch_and_downloads_it(client: Client, cast: Cast) -> None:
    client.force_login(User.objects.create_superuser("root@example.org"))
    form = {"code": "", "credit_usd": "10", "count": "3", "batch": "reseller 7", "max_redemptions": "",
            "credit_days": "90", "valid_until_0": "", "valid_until_1": ""}  # fmt: skip
    assert client.post("/ops/billing/creditcode/add/", form).status_code == 302
    made = list(CreditCode.objects.order_by("pk"))
    assert [(each.credit_nanos, each.max_redemptions, each.credit_days) for each in made] == [(10 * USD, 1, 90)] * 3
    assert AuditEntry.objects.get(action="creditcode.created").facts["count"] == 3
    chosen = {"action": "as_csv", "_selected_action": [str(each.pk) for each in made]}
    lines = client.post("/ops/billing/creditcode/", chosen).content.decode().splitlines()
    assert lines[0].startswith("code,batch,credit_usd")
    assert lines[1] == f"{made[0].code},reseller 7,10.00,,,,0,1"
    discount = {**form, "credit_usd": "", "percent_off": "20", "count": "1", "batch": "launch"}
    assert client.post("/ops/billing/creditcode/add/", discount).status_code == 302
    assert CreditCode.objects.get(batch="launch").percent_off == 20
    both = client.post("/ops/billing/creditcode/add/", {**discount, "off_usd": "5"})
    assert "gives one of three" in both.content.decode()
    own = {**form, "code": "welcome 26", "count": "1", "max_redemptions": "50"}
    assert client.post("/ops/billing/creditcode/add/", own).status_code == 302
    assert CreditCode.objects.get(code="WELCOME-26").max_redemptions == 50
    assert "exists already" in client.post("/ops/billing/creditcode/add/", own).content.decode()


def test_no_cell_of_a_batch_is_a_formula(client: Client, cast: Cast) -> None:
    code = a_code(batch='=HYPERLINK("https://example.com")')
    client.force_login(User.objects.create_superuser("root@example.org"))
    file = client.post("/ops/billing/creditcode/", {"action": "as_csv", "_selected_action": [str(code.pk)]})
    assert b",\"'=HYPERLINK" in file.content


def test_what_a_code_gives_cannot_be_changed(client: Client, cast: Cast) -> None:
    code = a_code()
    client.force_login(User.objects.create_superuser("root@example.org"))
    form = {"is_active": "", "credit_nanos": "1", "code": "OTHER", "batch": "", "max_redemptions": "",
            "valid_until_0": "", "valid_until_1": ""}  # fmt: skip
    assert client.post(f"/ops/billing/creditcode/{code.pk}/change/", form).status_code == 302
    code.refresh_from_db()
    assert (code.code, code.credit_nanos, code.is_active) == ("SPRING-26", 5 * USD, False)


@given(
    price=st.integers(50, 2_000_000).map(lambda cents: cents * CENT_NANOS),
    percent_off=st.integers(0, 99),
    off=st.integers(0, 3_000_000).map(lambda cents: cents * CENT_NANOS),
)
def test_a_discount_is_whole_cents_and_leaves_what_cards_take(price: int, percent_off: int, off: int) -> None:
    taken = discount_nanos(price, percent_off=percent_off, off_nanos=off)
    assert taken % CENT_NANOS == 0
    assert 0 <= taken <= price - LEAST_CHARGE_NANOS
    if off == 0 and price * (100 - percent_off) // 100 >= LEAST_CHARGE_NANOS:
        assert abs(taken - price * percent_off / 100) < CENT_NANOS


def a_discount(**facts: Any) -> CreditCode:
    return CreditCode.objects.create(**{"code": "LAUNCH-20", "percent_off": 20, **facts})


def order_with(code: str, organization: Organization, user: User | None = None) -> Order:
    plan, actor = Plan.objects.get(slug="pro"), user or owner_of(organization)
    return open_order(organization, provider="manual", plan=plan, code=code, actor=actor)


def test_a_discount_lowers_the_price_and_not_what_is_bought() -> None:
    a_discount()
    organization = an_organization(plan="free")
    before = account_of(organization).balance_nanos
    order = order_with("launch 20", organization)
    assert (order.amount_nanos, order.discount_nanos) == (3920 * USD // 100, 980 * USD // 100)
    settle_order(order, payment_reference="transfer 1")
    assert account_of(organization).balance_nanos == before + 45 * USD
    assert audit_ledger() == []


def test_a_discount_is_used_once_and_free_again_when_its_order_is_cancelled() -> None:
    code = a_discount(max_redemptions=1)
    organization, other = an_organization(plan="free"), an_organization(plan="free")
    order = order_with("LAUNCH-20", organization)
    with pytest.raises(CodeRefused, match="already"):
        order_with("LAUNCH-20", organization)
    with pytest.raises(CodeRefused, match="used up"):
        order_with("LAUNCH-20", other)
    assert Order.objects.count() == 1  # what was refused was not ordered
    cancel_order(order, actor=owner_of(organization))
    code.refresh_from_db()
    assert code.redemptions == 0
    assert order_with("LAUNCH-20", other).discount_nanos > 0


def test_a_person_uses_a_discount_once_however_many_organizations_they_have() -> None:
    a_discount()
    organization, other = an_organization(plan="free"), an_organization(plan="free")
    order_with("LAUNCH-20", organization)
    with pytest.raises(CodeRefused, match="already"):
        order_with("LAUNCH-20", other, owner_of(organization))


def test_codes_for_credit_and_for_orders_are_not_mixed_up() -> None:
    a_code()
    a_discount()
    organization = an_organization(plan="free")
    with pytest.raises(CodeRefused, match="billing page"):
        order_with("SPRING-26", organization)
    with pytest.raises(CodeRefused, match="when you order"):
        redeem("LAUNCH-20", organization, owner_of(organization))


def test_the_order_form_takes_a_discount_code(client: Client) -> None:
    a_discount()
    organization = an_organization(plan="free")
    client.force_login(owner_of(organization))
    url = reverse("credit-order", args=[organization.slug])
    wrong = client.post(url, {"amount": "25", "provider": "manual", "code": "nope"})
    assert wrong.status_code == 422
    assert "That code doesn&#x27;t exist." in wrong.content.decode()
    client.post(url, {"amount": "25", "provider": "manual", "code": "launch 20"})
    order = Order.objects.get()
    assert (order.amount_nanos, order.credit_nanos) == (20 * USD, 25 * USD)
    shown = client.get(reverse("order", args=[organization.slug, order.code])).content.decode()
    assert "$5.00" in shown
    assert "$20.00" in shown
