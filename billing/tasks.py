"""Celery tasks of money. Each fetches its own work; none carries data."""

from typing import Any

from celery import shared_task

from accounts.signals import access_changed
from billing import auto_recharge, charge_mails, ledger, renewals, selectors, subscriptions, trials
from billing.ledger_audit import audit_once_a_day
from billing.models import Account
from billing.papers import files, mails
from billing.papers.documents import Document
from billing.payments import charges, events, healing, refunds
from codexflow.lib.clock import now
from codexflow.lib.db import only_one

CHARGES_LOCK = 0x70617963  # "payc"; any number that nothing else locks


@shared_task
def expire_credit() -> str:
    """Book the expiry of credit, and tell gateways of credit that has just expired."""
    moment = now()
    for organization_id in selectors.just_expired(moment):
        access_changed.send(Account, organization_id=organization_id)
    return f"booked {ledger.expire_credit(moment)}"


@shared_task
def end_plans() -> str:
    """Begin and end periods of plans, and announce the ends of the next days."""
    moment = now()
    announced = renewals.announce_ends(moment) + trials.remind_of_ends(moment)
    return f"changed {subscriptions.advance_plans(moment)}, announced {announced}"


@shared_task
def audit_ledger() -> str:
    """Prove the ledger once a day."""
    done = audit_once_a_day(now())
    return "done already" if done is None else f"{done.findings} findings"


@shared_task
def handle_payment_events() -> str:
    """Handle what payment providers have sent, and again what failed; carry out refunds."""
    moment = now()
    return f"handled {events.handle_due(moment)}, refunded {refunds.carry_out_due(moment)}"


@shared_task
def charge_cards() -> str:
    """Ask about charges of saved cards without a response, make those that are due, and tell of all that have ended."""
    moment, charged = now(), 0
    with only_one(CHARGES_LOCK) as is_mine:
        if is_mine:
            charges.ask_about_started(moment)
            charged = renewals.charge_renewals(moment) + auto_recharge.recharge_due(moment)
    told = charge_mails.tell_of_charges(moment) + auto_recharge.tell_of_stops()
    return f"charged {charged}, told {told}"


@shared_task
def heal_payments() -> str:
    """Ask payment providers for payments that nobody has told of."""
    return f"healed {healing.heal_all()}"


@shared_task
def make_papers() -> str:
    """Make the PDF files that were asked for, then send the mails about them."""
    return f"made {files.make_waiting(_render)}, mailed {mails.send_waiting()}"


def _render(document: Document, **about: Any) -> bytes:
    # Only once there is a paper to make: Typst takes 7 MB of each process.
    from billing.papers.pdf import render

    return render(document, **about)
