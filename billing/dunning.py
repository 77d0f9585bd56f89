"""Schedule of charges to a saved card: when the next month of a plan is charged, and again after a decline. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

# How long before the end of a month the next one is charged. Not on the last day: a card that is declined is tried
# again while the plan still lasts, and its people have time to act. Nothing is given before it is paid.
BEFORE_END = (timedelta(days=3), timedelta(days=2), timedelta(days=1), timedelta(hours=2))
# A trial is paid by nobody, so that it is charged for as late as can be; if that fails it ends.
BEFORE_END_OF_TRIAL = (timedelta(hours=2),)
# Mails that remind of the end of a trial, as far as the trial is longer.
REMINDED = (timedelta(days=3), timedelta(days=1))
# The least between two tries: a late one does not make the next follow at once.
LEAST_BETWEEN = timedelta(hours=6)
AUTHENTICATION_REQUIRED = "authentication_required"
# Declines after which the same card is not tried again: it needs its holder, or is no longer valid.
FINAL = frozenset(
    {
        AUTHENTICATION_REQUIRED,
        *("expired_card", "incorrect_number", "invalid_account", "lost_card", "pickup_card", "restricted_card"),
        *("revocation_of_all_authorizations", "revocation_of_authorization", "stolen_card", "stop_payment_order"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """A charge that did not succeed, and the provider's word for why."""

    at: datetime
    code: str


def next_try(
    ends_at: datetime,
    tries: Sequence[Try],
    *,
    card_saved_at: datetime,
    before_end: Sequence[timedelta] = BEFORE_END,
) -> datetime | None:
    """Return when the month after `ends_at` is charged next; None: not any more. It may be in the past.

    `tries` are those of this month, the first one first. A card that was saved since the last of them is tried at once.
    """
    if not tries:
        return ends_at - before_end[0]
    last = tries[-1]
    if card_saved_at > last.at:
        return card_saved_at
    if last.code in FINAL:
        return None
    later = [ends_at - before for before in before_end if ends_at - before >= last.at + LEAST_BETWEEN]
    return min(later, default=None)


def reminders_due(begins_at: datetime, ends_at: datetime, at: datetime) -> int:
    """Return how many mails should have reminded of the end of a trial by now."""
    moments = [ends_at - before for before in REMINDED if ends_at - before > begins_at]
    return sum(moment <= at for moment in moments) if at < ends_at else 0
