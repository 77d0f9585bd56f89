"""Codes for credit and for discounts: made by operators, used once by each organization and person."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Organization, User
from accounts.signals import access_changed
from billing.ledger import post_credit
from billing.mailbox import mailbox_digest
from billing.models import Account, CreditCode, LedgerEntry, Order, RedeemedMailbox, Redemption
from billing.plans import discount_nanos
from billing.services import mailboxes_of
from codexflow.lib.clock import now
from codexflow.lib.ids import random_code

# Four groups have 76 bits.
GROUPS, GROUP_LENGTH = 4, 4
MAX_BATCH = 1_000


class CodeRefused(Exception):
    """A code cannot be redeemed. The text is translated and meant for a page."""


def normalized(text: str) -> str:
    """Return a code as it is stored: capitals, and dashes where people may have typed spaces or nothing special."""
    return "-".join(text.upper().replace("-", " ").split())


def make_codes(count: int, **facts: Any) -> list[CreditCode]:
    """Make a batch of random codes, each for one redemption unless `facts` say otherwise."""
    made = []
    for _each in range(count):
        code = "-".join(random_code(GROUP_LENGTH) for _group in range(GROUPS))
        made.append(CreditCode(**{"code": code, "max_redemptions": 1, **facts}))
    return CreditCode.objects.bulk_create(made)


def redeem(text: str, organization: Organization, user: User, *, address: str | None = None) -> LedgerEntry:
    """Give an organization the credit of a code, in one transaction with the audit entry. Raises CodeRefused.

    Each organization and each person once: persons are known by their mailboxes, also after their account is deleted.
    Gateways know of the credit at once.
    """
    at = now()
    with transaction.atomic():
        code, digests = _usable(text, organization, user, at)
        if code.is_discount:
            raise CodeRefused(_("This code is a discount. Enter it when you order."))
        entry = post_credit(
            organization,
            code.credit_nanos,
            kind=LedgerEntry.Kind.PROMO,
            reference=f"code:{code.pk}",
            note=f"Code {code.code}",
            expires_at=_expiry(code, at),
        )
        _use(code, digests, organization, ledger_entry=entry)
        audit.record(
            "credit.redeemed",
            entry,
            organization=organization,
            actor=user,
            address=address,
            batch=code.batch,
            amount_nanos=code.credit_nanos,
        )
        transaction.on_commit(partial(access_changed.send, Account, organization_id=organization.pk))
    return entry


class Discount(NamedTuple):
    """A discount code that is locked for a new order, and the hashes of its user's mailboxes."""

    code: CreditCode
    digests: set[bytes]


def find_discount(text: str, organization: Organization, user: User) -> Discount:
    """Lock a discount code, before the account as everywhere. Raises CodeRefused."""
    found = Discount(*_usable(text, organization, user, now()))
    if not found.code.is_discount:
        raise CodeRefused(_("This code gives credit. Redeem it on the billing page."))
    return found


def take_off(discount: Discount, order: Order) -> None:
    """Take off the price of a new order what its code says, in the transaction that places it."""
    code = discount.code
    order.discount_nanos = discount_nanos(order.amount_nanos, percent_off=code.percent_off, off_nanos=code.off_nanos)
    order.amount_nanos -= order.discount_nanos
    order.save(update_fields=["discount_nanos", "amount_nanos"])
    _use(code, discount.digests, order.organization, order=order)


def release_discount(order: Order, user: User | None) -> None:
    """Let the code of a cancelled order be used again, in the transaction that cancels it."""
    used = Redemption.objects.filter(order=order).first()
    if used is None:
        return
    code = CreditCode.objects.select_for_update().get(pk=used.code_id)
    used.delete()
    RedeemedMailbox.objects.filter(code=code, digest__in=_digests_of(order.created_by or user)).delete()
    code.redemptions -= 1
    code.save(update_fields=["redemptions"])


def _usable(text: str, organization: Organization, user: User, at: datetime) -> tuple[CreditCode, set[bytes]]:
    """Return a code that may be used now, and the hashes of its user's mailboxes. Raises CodeRefused.

    Locked, so that of fifty at once each counts the others; the account's row is locked by the ledger after it.
    """
    code = CreditCode.objects.select_for_update().filter(code=normalized(text)).first()
    if code is None or not code.is_active:
        raise CodeRefused(_("That code doesn't exist."))
    if code.valid_until is not None and at >= code.valid_until:
        raise CodeRefused(_("This code has expired."))
    digests = _digests_of(user)
    is_known = RedeemedMailbox.objects.filter(code=code, digest__in=digests).exists()
    if is_known or Redemption.objects.filter(code=code, organization=organization).exists():
        raise CodeRefused(_("You've already redeemed this code."))
    if code.max_redemptions is not None and code.redemptions >= code.max_redemptions:
        raise CodeRefused(_("This code is used up."))
    return code, digests


def _use(code: CreditCode, digests: set[bytes], organization: Organization, **what: Any) -> None:
    Redemption.objects.create(code=code, organization=organization, **what)
    RedeemedMailbox.objects.bulk_create([RedeemedMailbox(code=code, digest=each) for each in digests])
    code.redemptions += 1
    code.save(update_fields=["redemptions"])


def _expiry(code: CreditCode, at: datetime) -> datetime | None:
    return None if code.credit_days is None else at + timedelta(days=code.credit_days)


def _digests_of(user: User | None) -> set[bytes]:
    """Return the hashes of a person's mailboxes, under the current salt and the one before."""
    mailboxes: Iterable[str] = mailboxes_of(user) if user is not None else ()
    return {mailbox_digest(mailbox, salt) for mailbox in mailboxes for salt in settings.ENV.salts}
