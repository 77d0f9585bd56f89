"""Celery tasks of the usage pipeline. Each fetches its own work; none carries data."""

import logging
import os
import socket
from functools import partial

from celery import shared_task
from django.conf import settings
from redis import RedisError

from billing.limiter.epochs import shards_of
from codexflow.lib.clock import now_ms
from codexflow.lib.redis import sync_client
from logs.content import store
from logs.exports import jobs
from logs.litellm import daily, ingest, stream, sync
from logs.margin import daily as margins
from logs.model_ends import notices
from logs.pipeline import drain, partitions, sweeper, verify
from logs.pipeline.reconcile import reconcile
from logs.pipeline.streams import forget_consumers as forget_consumers_of
from logs.refusals import store as refusals
from logs.tail.publisher import TailPublisher

logger = logging.getLogger(__name__)


@shared_task
def drain_usage() -> str:
    """Drain the usage stream into rows, ledger and rollups, and publish the rows to the live tail."""
    redis, prefix = sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix
    done = drain.drain(
        redis,
        prefix=prefix,
        consumer=_consumer(),
        on_batch=partial(_publish, TailPublisher(sync_client(settings.ENV.redis_shared_url), prefix)),
    )
    try:
        redis.set(drain.progress_key(prefix), now_ms())
    except RedisError as exc:  # of a cluster, the node of this key may be away
        logger.warning("drain.progress_unknown", extra={"reason": repr(exc)})
    return f"read {done.read}, stored {done.stored}, corrected {done.corrected}, dead {done.dead}"


def _publish(publisher: TailPublisher, batch: drain.Drained) -> None:
    publisher.publish(batch.new_rows, batch.corrected_rows)


def _consumer() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


@shared_task
def forget_consumers() -> str:
    """Forget the streams' consumers that were processes of workers and have ended."""
    redis, prefix = sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix
    groups: list[tuple[bytes | str, bytes | str]] = [
        *((shard.usage, drain.GROUP) for shard in shards_of(prefix)),
        (stream.name_of(prefix), stream.GROUP),
        (store.name_of(prefix), store.GROUP),
    ]
    return f"forgot {sum(forget_consumers_of(redis, name, group) for name, group in groups)}"


@shared_task
def take_reports() -> str:
    """Take LiteLLM's reports from the stream into rows and ledger."""
    redis, prefix = sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix
    return str(stream.take_waiting(redis, prefix, consumer=_consumer()))


@shared_task
def take_content() -> str:
    """Store prompts and responses from the stream, for organizations that store them."""
    redis, prefix = sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix
    return f"kept {store.save_waiting(redis, prefix, consumer=_consumer())}"


@shared_task
def delete_content() -> str:
    """Delete prompts and responses past their retention."""
    return f"deleted {store.delete_expired()}"


@shared_task
def retry_reports() -> str:
    """Retry reports that came before their request."""
    return str(ingest.retry(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix))


@shared_task
def retry_unmatched() -> str:
    """Retry unmatched reports: keys are mapped later, and journals are shipped later."""
    redis, prefix = sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix
    return str(ingest.retry(redis, prefix, also_unmatched=True, limit=5_000))


@shared_task
def forget_unmatched() -> str:
    """Delete reports that were unmatched for too long."""
    return f"forgot {ingest.delete_unmatched(days=settings.ENV.unmatched_days)}"


@shared_task
def sweep_orphans() -> str:
    """Settle calls whose process died."""
    return f"settled {sweeper.sweep_orphans(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix)}"


@shared_task
def reconcile_limits() -> str:
    """Reconcile Redis's counters with PostgreSQL."""
    done = reconcile(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix)
    return f"{done.scopes} scopes, {done.corrected} corrected, {done.busy} busy"


@shared_task
def reconcile_litellm() -> str:
    """Reconcile past days with LiteLLM's reports."""
    days = daily.reconcile_days(settings.ENV)
    return f"compared {', '.join(map(str, days)) or 'nothing: done, too early, or no reports'}"


@shared_task
def take_refusals() -> str:
    """Store the refused calls that gateways have counted."""
    redis, prefix = sync_client(settings.ENV.redis_shared_url), settings.ENV.redis_prefix
    return f"stored {refusals.take_waiting(redis, prefix)}"


@shared_task
def send_model_end_notices() -> str:
    """Mail the owners of keys about models that end."""
    return f"sent {notices.send_notices()}"


@shared_task
def store_margins() -> str:
    """Store the margins of past days; a loss raises an alarm."""
    days = margins.store_margins(bound_percent=settings.ENV.margin_alarm_percent)
    return f"stored {', '.join(map(str, days)) or 'nothing: done, or too early'}"


@shared_task
def make_partitions() -> str:
    """Create partitions of the days ahead, and drop those past every plan's retention."""
    made, dropped = partitions.make_ahead(), partitions.drop_expired()
    if dropped:
        ingest.delete_identities(partitions.first_day_kept())
    refusals.delete_before(partitions.first_day_kept())
    return f"made {made}, dropped {len(dropped)}, strays {partitions.strays()}"


@shared_task
def verify_rollups() -> str:
    """Verify rollups against rows."""
    return f"{len(verify.verify_rollups())} tables drift"


@shared_task
def run_exports() -> str:
    """Run waiting and interrupted exports."""
    return f"{jobs.run_exports(within_s=20)} slices"


@shared_task
def expire_exports() -> str:
    """Delete expired export files."""
    return f"removed {jobs.expire_exports()}"


@shared_task
def sync_litellm() -> str:
    """Sync from LiteLLM's own log."""
    return sync.sync(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix)
