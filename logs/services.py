"""Operators' actions on dead letters."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from accounts import audit
from accounts.models import User
from billing.limiter.limits import ShardKeys
from codexflow.lib.redis import SHARDS, sync_client
from logs.litellm.ingest import take
from logs.litellm.report import BadReport, decode_delivery
from logs.models import DeadLetter
from logs.pipeline.dead_letters import REJECTIONS
from logs.pipeline.drain import Entry, store
from logs.pipeline.events import BadEvent, decode


@dataclass(frozen=True, slots=True)
class Retried:
    """Number of dead letters that found their place, and of those that failed again."""

    stored: int
    failed: int


def retry_dead_letters(
    letters: Iterable[DeadLetter], *, actor: User | None = None, address: str | None = None
) -> Retried:
    """Store dead letters as if they had just come, each in a transaction with its deletion and the audit entry.

    One that fails again stays, with the new reason. Nothing is charged twice: a request is stored once.
    """
    stored = failed = 0
    for letter in letters:
        try:
            with transaction.atomic():
                _store(letter)
                letter_id, stream_id = letter.pk, letter.stream_id
                letter.delete()
                letter.pk = letter_id
                audit.record(
                    "dead_letter.retried", letter, organization=None, actor=actor, address=address, stream_id=stream_id
                )
            stored += 1
        except (BadEvent, BadReport, *REJECTIONS) as exc:
            DeadLetter.objects.filter(pk=letter.pk).update(reason=str(exc))
            failed += 1
    return Retried(stored, failed)


def _store(letter: DeadLetter) -> None:
    """Raise BadEvent, BadReport, or what PostgreSQL raises for a value."""
    prefix, payload = settings.ENV.redis_prefix, bytes(letter.payload)
    stream, _, stream_id = letter.stream_id.rpartition("/")
    shards = {shard.usage.decode(): shard for shard in (ShardKeys.of(prefix, number) for number in range(SHARDS))}
    if stream in shards:
        decode(payload)  # otherwise `store` would make a dead letter of it again
        store([Entry(shards[stream], stream_id.encode(), payload)])
    else:
        take(decode_delivery(payload).reports, redis=sync_client(settings.ENV.redis_url), prefix=prefix)
