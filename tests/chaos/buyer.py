"""Customers who pay by card while processes die, and the proof that every payment was credited once.

`python -m tests.chaos.buyer buy --seed 7` orders, pays, refunds and disputes until it is terminated, saves cards
that then pay renewals and top-ups, and makes the local Stripe deliver its events twice, in another order, late, or
never, and lose its responses. `... settle` lets everything that is due happen now, then compares Stripe's payments with
orders and ledger; each difference is a line.
"""

import argparse
import contextlib
import random
import signal
import sys
import threading
from datetime import timedelta
from typing import Any

import django
import httpx
from django.db import transaction

from billing.recharge import Rule

Json = dict[str, Any]
TIMEOUT_S = 10
ROUNDS = 40
CENT_NANOS = 10_000_000
RULE = Rule(threshold_nanos=1_000 * CENT_NANOS, amount_nanos=2_500 * CENT_NANOS, month_limit_nanos=20_000 * CENT_NANOS)


class LocalStripe:
    """The local Stripe's controls and lists, over HTTP."""

    def __init__(self, base: str, key: str) -> None:
        self._http = httpx.Client(base_url=base, timeout=TIMEOUT_S, headers={"Authorization": f"Bearer {key}"})

    def control(self, method: str, path: str, **given: Any) -> Json:
        found: Json = self._http.request(method, f"/_local/{path}", json=given).raise_for_status().json()
        return found

    def every(self, path: str) -> list[Json]:
        """All objects of a list, page by page."""
        found: list[Json] = []
        while True:
            after = {"starting_after": found[-1]["id"]} if found else {}
            page = self._http.get(f"/v1/{path}", params={"limit": 100, **after}).raise_for_status().json()
            found += page["data"]
            if not page["has_more"]:
                return found


def buy(stripe: LocalStripe, is_over: threading.Event, *, seed: int) -> None:
    """Make payments until told to stop. What fails while something is away is left as it is."""
    from django.db import Error, close_old_connections

    from accounts.models import Organization
    from billing.models import Account, PlanPeriod
    from billing.payments.booking import stop_checkout
    from billing.payments.cards import CardRefused, begin_setup, confirm_setup
    from billing.payments.orders import OrderRefused, cancel_order, open_order
    from billing.payments.provider import ProviderRefused, ProviderUnavailable, provider_of
    from billing.payments.refunds import RefundRefused, request_refund
    from billing.recharge_rules import set_rule
    from codexflow.lib.clock import now
    from codexflow.lib.ids import random_id

    draw = random.Random(seed)  # noqa: S311 - a repeatable mix
    away = (Error, CardRefused, OrderRefused, ProviderRefused, ProviderUnavailable, RefundRefused, httpx.HTTPError)
    organizations: list[Organization] = []
    paid: list[Any] = []

    def order_and_pay() -> None:
        from billing.models import Plan

        organization = draw.choice(organizations)
        plan = Plan.objects.filter(slug="starter").first() if draw.random() < 0.3 else None
        amount_nanos = draw.randint(500, 5_000) * CENT_NANOS
        order = open_order(organization, provider="stripe", amount_nanos=amount_nanos, plan=plan)
        url = provider_of("stripe").start(order, order_url="/o/x/billing/orders/x/")
        outcome = draw.choices(("paid", "declined"), (9, 1))[0]
        stripe.control("POST", "pay", session=url.rpartition("/")[2], outcome=outcome)
        if outcome == "paid":
            paid.append(order)
        elif draw.random() < 0.5:
            order.refresh_from_db()
            stop_checkout(order)
            cancel_order(order)

    def give_back() -> None:
        order = draw.choice(paid)
        order.refresh_from_db()
        request_refund(order, draw.randint(1, 500) * CENT_NANOS, key=random_id(), reason="chaos")

    def dispute() -> None:
        order = draw.choice(paid)
        order.refresh_from_db()
        made = stripe.control("POST", "disputes", payment_intent=order.payment_reference)
        if draw.random() < 0.7:
            stripe.control("POST", f"disputes/{made['id']}", won=draw.random() < 0.5)

    def save_card() -> None:
        organization = draw.choice(organizations)
        setup = begin_setup(organization, page_url="/o/x/billing/").rpartition("/")[2]
        stripe.control(
            "POST", "pay", session=setup, card=draw.choices(("4242", "4444", "0341", "3184"), (5, 3, 1, 1))[0]
        )
        if draw.random() < 0.5:
            confirm_setup(organization)

    def top_up_automatically() -> None:
        organization = draw.choice(organizations)
        set_rule(organization, RULE)
        spend_all(organization)

    def let_time_pass() -> None:
        """Bring the end of a plan so near that its next month is charged."""
        organization = draw.choice(organizations)
        with transaction.atomic():
            account = Account.objects.select_for_update().get(organization=organization)
            if account.plan_ends_at is None:
                return
            by = account.plan_ends_at - now() - timedelta(days=2)
            for period in PlanPeriod.objects.filter(organization=organization, ends_at__gt=now()):
                period.month_begins_at -= by
                period.begins_at -= by
                period.ends_at -= by
                period.save()
            account.plan_ends_at -= by
            account.save(update_fields=["plan_ends_at"])

    def misdeliver() -> None:
        how = draw.random()
        stripe.control("POST", "responses", lost=draw.random() < 0.2)
        if how < 0.4:
            stripe.control("POST", "deliveries", held=True)
        elif how < 0.7:
            stripe.control("POST", "deliver", times=2, order=draw.choice(("reversed", "shuffled")))
        elif how < 0.85:
            stripe.control("DELETE", "deliveries")
        else:
            stripe.control("POST", "deliveries", held=False)

    while not is_over.is_set():
        with contextlib.suppress(*away, IndexError):
            organizations = organizations or list(Organization.objects.order_by("slug")[:6])
            acts = (order_and_pay, give_back, dispute, misdeliver, save_card, top_up_automatically, let_time_pass)
            draw.choices(acts, (6, 2, 1, 2, 2, 2, 1))[0]()
        close_old_connections()


def spend_all(organization: Any) -> None:
    """Spend what an organization has, as a call would."""
    from billing.ledger import Charge, post_charges
    from billing.models import Account
    from codexflow.lib.clock import now
    from codexflow.lib.ids import new_id, random_id

    balance_nanos = Account.objects.get(organization=organization).balance_nanos
    if balance_nanos > 0:
        spent = Charge(
            organization_id=organization.pk,
            key_id=random_id(),
            request_id=new_id(),
            revision=1,
            day=now().date(),
            amount_nanos=balance_nanos,
            hold_nanos=0,
            is_correction=False,
        )
        post_charges([spent])


def settle(stripe: LocalStripe) -> list[str]:
    """Let everything that is due happen, as hours would, and return what differs afterwards."""
    from datetime import timedelta

    from billing.auto_recharge import ordered_this_month
    from billing.ledger_audit import audit_ledger
    from billing.models import AutoRecharge, CardCharge, LedgerEntry, Order, PaymentEvent, Refund
    from billing.payments import charges as card_charges
    from billing.payments import events, healing, refunds
    from billing.payments.reversals import taken_of
    from codexflow.lib.clock import now

    stripe.control("POST", "deliveries", held=False)
    stripe.control("POST", "responses", lost=False)
    for _ in range(ROUNDS):
        stripe.control("POST", "deliver")
        healing.heal_all()
        # As after a quarter of an hour: what nobody has answered is asked about, and given up if it was never made.
        card_charges.ask_about_started(now() + timedelta(minutes=20))
        refunds.carry_out_due(now() + timedelta(hours=1))
        events.handle_due(now() + timedelta(days=1))
        waiting = PaymentEvent.objects.filter(state=PaymentEvent.State.RECEIVED).exists()
        under_way = CardCharge.objects.filter(state=CardCharge.State.STARTED).exists()
        if not waiting and not under_way and not Refund.objects.filter(state=Refund.State.REQUESTED).exists():
            break
    found = [f"the ledger proves every balance: {each}" for each in audit_ledger()]
    found += [
        f"every event is handled: {each.type} {each.object_id} {each.state} {each.outcome}"
        for each in PaymentEvent.objects.exclude(state=PaymentEvent.State.DONE)
    ]
    found += [
        f"every charge has an outcome: {each.order_id} {each.number}"
        for each in CardCharge.objects.filter(state=CardCharge.State.STARTED)
    ]
    found += [
        f"top-ups keep to their month's limit: {each.pk}"
        for each in AutoRecharge.objects.all()
        if ordered_this_month(each.pk, now()) > each.month_limit_nanos
    ]
    intents = {each["id"]: each for each in stripe.every("payment_intents") if each["status"] == "succeeded"}
    charges = {each["payment_intent"]: each for each in stripe.every("charges") if each["paid"]}
    disputed: dict[str, int] = {}
    for each in stripe.every("disputes"):
        if each["status"] not in ("won", "warning_closed", "warning_needs_response"):
            disputed[each["payment_intent"]] = disputed.get(each["payment_intent"], 0) + each["amount"]
    orders = {each.code: each for each in Order.objects.select_related("ledger_entry")}
    for name, intent in intents.items():
        order = orders.get(intent["metadata"].get("codexflow_order", ""))
        if order is None or order.state != "paid" or order.payment_reference != name:
            found.append(f"every payment is credited: {name} {order and (order.code, order.state)}")
            continue
        entries = LedgerEntry.objects.filter(organization_id=order.organization_id)
        booked = [each.amount_nanos for each in entries.filter(reference=f"order:{order.code}")]
        is_begun = getattr(order, "period", None) is None or order.period.has_begun
        if order.credit_nanos and is_begun and len(booked) != 1:
            found.append(f"every payment is credited once: {order.code} {booked}")
        of_stripe = (charges[name]["amount_refunded"], disputed.get(name, 0))
        ours = (order.refunded_nanos // CENT_NANOS, order.disputed_nanos // CENT_NANOS)
        if of_stripe != ours:
            found.append(f"refunds and disputes are Stripe's: {order.code} {ours}, Stripe says {of_stripe}")
        taken = -sum(each.amount_nanos for each in entries.filter(reference__startswith=f"order:{order.code}:"))
        withheld = order.credit_nanos - sum(booked)
        if is_begun and taken + withheld != taken_of(order):
            found.append(f"what is given back is taken: {order.code} {taken} of {taken_of(order)}")
    paid = {each.payment_reference for each in orders.values() if each.state == "paid" and each.provider == "stripe"}
    found += [f"nothing is credited that was not paid: {each}" for each in paid - set(intents)]
    refunded = sum(charges[name]["amount_refunded"] > 0 for name in intents)
    of_cards = sum("codexflow_charge" in each["metadata"] for each in intents.values())
    sys.stdout.write(
        f"{len(intents)} payments, {of_cards} by saved cards, {refunded} refunded, {len(disputed)} disputed,"
        f" {len(orders)} orders\n"
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.buyer", description=__doc__)
    parser.add_argument("verb", choices=("buy", "settle"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    django.setup()
    from django.conf import settings

    stripe = LocalStripe(settings.ENV.stripe_api_base, settings.ENV.stripe_secret_key)
    if options.verb == "buy":
        is_over = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: is_over.set())
        buy(stripe, is_over, seed=options.seed)
        return 0
    found = settle(stripe)
    sys.stdout.write("".join(f"  FAILED {line}\n" for line in found) + ("" if found else "money: clean\n"))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
