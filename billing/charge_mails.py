"""Mails about charges of saved cards: each that was paid, and each that was declined."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from accounts import mail
from accounts.selectors import billing_managers
from billing.dunning import AUTHENTICATION_REQUIRED
from billing.models import CardCharge, Order
from billing.renewals import forecast_of
from billing.selectors import account_of, saved_card_of
from codexflow.lib.addresses import site_url

BATCH = 50
# Older ones are told to nobody any more: a worker was away for days.
WORTH_SENDING = timedelta(days=3)


def tell_of_charges(at: datetime) -> int:
    """Mail those who manage billing about charges that have ended, each once. Returns how many.

    Marked first: a worker that dies then leaves a mail unsent, and none is sent twice.
    """
    told = 0
    ended = CardCharge.objects.filter(is_told=False).exclude(state=CardCharge.State.STARTED)
    for charge_id in list(ended.order_by("pk").values_list("pk", flat=True)[:BATCH]):
        with transaction.atomic():
            if not CardCharge.objects.filter(pk=charge_id, is_told=False).update(is_told=True):
                continue  # another worker tells
        charge = CardCharge.objects.select_related("organization", "order__plan").get(pk=charge_id)
        is_able = settings.ENV.mail is not None or not settings.ENV.is_production
        # Of a top-up that was declined, the mail is the one that says that they have stopped.
        is_declined = charge.state == CardCharge.State.DECLINED and not charge.order.is_recharge
        is_news = charge.state == CardCharge.State.PAID or is_declined
        if is_able and is_news and (charge.ended_at or at) > at - WORTH_SENDING:
            _send(charge, at)
            told += 1
    return told


def _send(charge: CardCharge, at: datetime) -> None:
    order, account = charge.order, account_of(charge.organization)
    card = saved_card_of(charge.organization)
    is_paid = charge.state == CardCharge.State.PAID
    forecast = forecast_of(account, at) if not is_paid and order.renews_from is not None else None
    facts = {
        "organization": charge.organization.name,
        "plan": order.plan.name if order.plan else "",
        "amount_nanos": order.amount_nanos,
        "last4": card.last4 if card else "",
        "code": order.code,
        "ends_at": order.renews_from,
        "next_at": forecast.at if forecast else None,
        "needs_authentication": charge.code == AUTHENTICATION_REQUIRED,
        "is_open": order.state == Order.State.OPEN,
        "url": f"{site_url(settings.ENV)}/o/{charge.organization.slug}/billing/orders/{order.code}/",
    }
    for person in billing_managers(charge.organization):
        mail.send("card_charged" if is_paid else "card_declined", person.email, language=person.language, **facts)
