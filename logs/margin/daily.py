"""Daily margins: stored once a day, so that a scrape of the metrics computes nothing; a loss raises an alarm."""

import logging
from collections.abc import Sequence
from datetime import date, timedelta

from django.db import transaction

from codexflow.lib import clock
from logs.margin.report import ModelMargin, margins_of
from logs.models import DayMargin

logger = logging.getLogger(__name__)

# LiteLLM's last reports of a day come with the wide sync of the night after, and sometimes of the next.
DUE_HOUR = 6
STORED_DAYS = 3
# A loss below this is rounding, or one odd call.
MIN_LOSS_NANOS = 10_000_000  # one cent
NUMBERS = tuple(name for name in ModelMargin.__dataclass_fields__ if name not in ("day", "model"))


def store_margins(*, bound_percent: float) -> list[date]:
    """Store the margins of the last three whole days, once a day from 06:00 UTC on. Returns the days.

    A model that lost more than `bound_percent` of its charges on the last day is logged as an error.
    """
    now = clock.now()
    days = [now.date() - timedelta(days=each) for each in range(STORED_DAYS, 0, -1)]
    is_done = DayMargin.objects.filter(day=days[-1], stored_at__date=now.date()).exists()
    if is_done or now.hour < DUE_HOUR:
        return []
    for day in days:
        margins = margins_of(day)
        with transaction.atomic():
            DayMargin.objects.filter(day=day).delete()
            DayMargin.objects.bulk_create(
                DayMargin(
                    day=day,
                    model=each.model,
                    stored_at=now,
                    is_loss=is_loss(each, bound_percent=bound_percent),
                    **{name: getattr(each, name) for name in NUMBERS},
                )
                for each in margins
            )
        if day == days[-1]:
            _alarm(margins, bound_percent)
    return days


def is_loss(margin: ModelMargin, *, bound_percent: float) -> bool:
    """Return whether the cost is above the charges by more than the bound."""
    charged_nanos = margin.charged_nanos - margin.unreported_nanos
    return -margin.margin_nanos > max(MIN_LOSS_NANOS, charged_nanos * bound_percent / 100)


def _alarm(margins: Sequence[ModelMargin], bound_percent: float) -> None:
    for each in margins:
        if is_loss(each, bound_percent=bound_percent):
            logger.error(
                "margin.loss",
                extra={
                    "day": str(each.day),
                    "model": each.model,
                    "charged_nanos": each.charged_nanos,
                    "upstream_nanos": each.upstream_nanos,
                    "left_early_nanos": each.left_early_nanos,
                },
            )
