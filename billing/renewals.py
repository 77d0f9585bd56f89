"""Renewal of bought plans: a week before the end the next month's order is made, and its people are told."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from accounts import mail
from accounts.selectors import billing_managers
from billing.models import Account, Order
from billing.payments.orders import OrderRefused, is_for_sale, open_order
from billing.payments.provider import offered
from billing.subscriptions import periods_of
from codexflow.lib.addresses import site_url

# How long before its end a bought plan is announced to end.
ANNOUNCED = timedelta(days=7)


def announce_ends(at: datetime) -> int:
    """Mail those who manage billing that a bought plan ends within a week, once. Returns how many plans.

    If the plan renews, the order of the next month is made first and the mail leads to it.
    """
    soon = Account.objects.filter(plan_ends_at__gt=at, plan_ends_at__lte=at + ANNOUNCED, is_end_announced=False)
    announced = 0
    for organization_id in list(soon.values_list("pk", flat=True)):
        with transaction.atomic():
            locked = soon.select_for_update(of=("self",)).select_related("organization", "plan__current", "next_plan")
            account = locked.filter(pk=organization_id).first()
            if account is None:
                continue  # announced by another worker, or bought again
            account.is_end_announced = True  # first: nobody is told twice
            account.save(update_fields=["is_end_announced"])
            if any(not each.has_begun for each in periods_of(account.organization, at)):
                continue  # the next month is paid
            order = _order_of_next(account)
        _mail(account, order)
        announced += 1
    return announced


def _order_of_next(account: Account) -> Order | None:
    """Make the order of the next month; None if the plan does not renew or is not sold any more."""
    plan = account.next_plan or account.plan.newest
    providers = offered()
    if not (account.renews and providers and is_for_sale(plan)):
        return None
    try:
        with transaction.atomic():
            return open_order(
                account.organization, provider=providers[0].name, plan=plan, is_renewal=True, actor_label="CodexFlow"
            )
    except OrderRefused:
        return None  # five are open: one of them will do


def _mail(account: Account, order: Order | None) -> None:
    if settings.ENV.mail is None and settings.ENV.is_production:
        return
    pages = f"{site_url(settings.ENV)}/o/{account.organization.slug}/billing/"
    facts = {
        "organization": account.organization.name,
        "plan": account.plan.name,
        "ends_at": account.plan_ends_at,
        "url": pages if order is None else f"{pages}orders/{order.code}/",
    }
    for person in billing_managers(account.organization):
        if order is None:
            mail.send("plan_ends", person.email, language=person.language, **facts)
        else:
            sold = {"next_plan": order.plan.name if order.plan else "", "amount_nanos": order.amount_nanos}
            mail.send("plan_renews", person.email, language=person.language, code=order.code, **facts, **sold)
