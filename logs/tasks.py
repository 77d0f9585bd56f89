"""Celery's doorbells of the usage pipeline. Each fetches its own work; none carries data."""

import os
import socket

from celery import shared_task
from django.conf import settings

from codexflow.lib.redis import sync_client
from logs import drain, partitions, services
from logs.reconcile import reconcile


@shared_task
def drain_usage() -> str:
    """Events from the stream to rows, ledger and rollups."""
    consumer = f"{socket.gethostname()}-{os.getpid()}"
    done = drain.drain(sync_client(settings.ENV.redis_url), prefix=settings.ENV.redis_prefix, consumer=consumer)
    return f"read {done.read}, stored {done.stored}, corrected {done.corrected}, dead {done.dead}"


@shared_task
def sweep_orphans() -> str:
    """Calls whose process died."""
    return f"settled {services.sweep_orphans(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix)}"


@shared_task
def reconcile_limits() -> str:
    """Redis's counters against PostgreSQL."""
    done = reconcile(sync_client(settings.ENV.redis_url), settings.ENV.redis_prefix)
    return f"{done.scopes} scopes, {done.corrected} corrected, {done.busy} busy"


@shared_task
def make_partitions() -> str:
    """Partitions of the days ahead."""
    return f"made {partitions.make_ahead()}, strays {partitions.strays()}"


@shared_task
def verify_rollups() -> str:
    """Rollups against rows."""
    return f"{len(services.verify_rollups())} tables drift"
