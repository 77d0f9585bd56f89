"""Operators' actions on unmatched reports."""

from collections.abc import Sequence
from itertools import chain

from django.conf import settings
from django.db import transaction

from accounts import audit
from accounts.models import User
from codexflow.lib.redis import sync_client
from keys.models import ApiKey
from logs.litellm.ingest import Taken, take
from logs.litellm.report import decode_delivery
from logs.models import UnmatchedReport


def map_to_key(
    rows: Sequence[UnmatchedReport],
    key: ApiKey,
    *,
    actor: User | None = None,
    address: str | None = None,
    rests_on: str = "",
) -> Taken:
    """Take these reports as calls of `key`, in one transaction with the audit entry.

    When they all come from one LiteLLM key and `key` is not mapped yet, it is mapped to it: all other unmatched reports
    of that LiteLLM key are taken as well, and so are later ones. `rests_on`, for the audit entry: the field of the key
    list by which the key was proposed.
    """
    redis, prefix = sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix
    litellm_keys = {row.litellm_key for row in rows}
    with transaction.atomic():
        chosen = {row.pk: row for row in rows}
        litellm_key = next(iter(litellm_keys)) if len(litellm_keys) == 1 else ""
        if litellm_key and not key.litellm_key_id:
            key.litellm_key_id = litellm_key
            key.save(update_fields=["litellm_key_id"])
            chosen |= {row.pk: row for row in UnmatchedReport.objects.filter(litellm_key=litellm_key)[:5_000]}
        audit.record(
            "reports.mapped",
            key,
            organization=key.organization,
            actor=actor,
            address=address,
            count=len(chosen),
            litellm_key=litellm_key,
            **({"rests_on": rests_on} if rests_on else {}),
        )
        total = Taken()
        reports = [decode_delivery(bytes(row.report)).reports for row in chosen.values()]
        for start in range(0, len(reports), 100):
            batch = chain.from_iterable(reports[start : start + 100])
            total.add(take(batch, redis=redis, prefix=prefix, owner=key))
    return total
