"""Codes that give promotional credit: made by operators, redeemed once by each organization and person."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Organization, User
from accounts.signals import access_changed
from billing.ledger import post_credit
from billing.mailbox import mailbox_digest
from billing.models import Account, CreditCode, LedgerEntry, RedeemedMailbox, Redemption
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
        # Locked, so that of fifty at once each counts the others; the account's row is locked by the ledger after it.
        code = CreditCode.objects.select_for_update().filter(code=normalized(text)).first()
        if code is None or not code.is_active:
            raise CodeRefused(_("There is no such code."))
        if code.valid_until is not None and at >= code.valid_until:
            raise CodeRefused(_("This code has expired."))
        digests = _digests_of(user)
        is_known = RedeemedMailbox.objects.filter(code=code, digest__in=digests).exists()
        if is_known or Redemption.objects.filter(code=code, organization=organization).exists():
            raise CodeRefused(_("You have redeemed this code already."))
        if code.max_redemptions is not None and code.redemptions >= code.max_redemptions:
            raise CodeRefused(_("This code is used up."))
        entry = post_credit(
            organization,
            code.credit_nanos,
            kind=LedgerEntry.Kind.PROMO,
            reference=f"code:{code.pk}",
            note=f"Code {code.code}",
            expires_at=_expiry(code, at),
        )
        Redemption.objects.create(code=code, organization=organization, ledger_entry=entry)
        RedeemedMailbox.objects.bulk_create([RedeemedMailbox(code=code, digest=each) for each in digests])
        code.redemptions += 1
        code.save(update_fields=["redemptions"])
        audit.record(
            "credit.redeemed",
            entry,
            organization=organization,
            actor=user,
            address=address,
            batch=code.batch,
            amount_nanos=code.credit_nanos,
        )
        transaction.on_commit(lambda: access_changed.send(Account))
    return entry


def _expiry(code: CreditCode, at: datetime) -> datetime | None:
    return None if code.credit_days is None else at + timedelta(days=code.credit_days)


def _digests_of(user: User) -> set[bytes]:
    """Return the hashes of a person's mailboxes, under the current salt and the one before."""
    mailboxes: Iterable[str] = mailboxes_of(user)
    return {mailbox_digest(mailbox, salt) for mailbox in mailboxes for salt in settings.ENV.salts}
