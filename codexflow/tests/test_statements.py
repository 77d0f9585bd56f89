"""The statement of a month and the overview's usage are the same, through the drain and its corrections."""

from datetime import UTC

import msgspec
import pytest
from django.conf import settings
from django.db.models import Sum

from billing.limiter.limits import ShardKeys
from billing.models import LedgerEntry, ModelSpendDaily
from billing.papers.selectors import statement_of
from billing.papers.statement import month_after
from billing.pricing import Usage, cost_nanos
from codexflow.lib.clock import now
from logs.pipeline.drain import Entry, store
from logs.pipeline.events import RANK_PROGRESS, encode
from logs.usage.series import usage_of
from tests.support.cast import Cast, an_event_of, happened

pytestmark = pytest.mark.django_db


def usage_by(group: str, cast: Cast) -> dict[str | None, tuple[int, int]]:
    first = now().date().replace(day=1)
    cells = usage_of(
        cast.organization.pk, first=first, last=now().date(), interval="month", zone=UTC, group=group
    ).cells
    sums = {cell.group: (cell.sums["requests"], cell.sums["cost_nanos"]) for cell in cells}
    return {name: each for name, each in sums.items() if each != (0, 0)}


def test_the_statement_has_the_usage_that_the_overview_shows(cast: Cast) -> None:
    events = [an_event_of(cast, model=f"model-{n % 3}") for n in range(12)]
    # A sweeper had guessed the first one's model and usage before its gateway's own report came.
    little = Usage(prompt_tokens=10)
    guessed = msgspec.structs.replace(
        events[0],
        model="guessed",
        source="sweeper",
        rank=RANK_PROGRESS,
        usage=little,
        cost_nanos=cost_nanos(little, events[0].rates),
    )
    happened(cast, guessed)
    shard = ShardKeys.of(settings.ENV.redis_prefix, 0)
    assert store([Entry(shard, each.request_id.bytes.hex().encode(), encode(each)) for each in events]).corrected == 1
    month = now().date().replace(day=1)
    shown = statement_of(cast.organization, month)
    by_model = {name: (usage.requests, usage.cost_nanos) for name, usage in shown.by_model.items()}
    assert by_model == usage_by("model", cast)
    settled = LedgerEntry.objects.filter(organization=cast.organization, day__gte=month, day__lt=month_after(month))
    nanos = settled.exclude(request_id=None).aggregate(sum=Sum("amount_nanos"))["sum"]
    assert shown.usage_nanos == -nanos == sum(each.cost_nanos for each in events)


def test_only_the_ledger_writes_spend_by_model(cast: Cast) -> None:
    happened(cast, an_event_of(cast, model="model-1"))
    (row,) = ModelSpendDaily.objects.filter(organization=cast.organization)
    assert (row.model, row.requests, row.day) == ("model-1", 1, row.usage_day)
