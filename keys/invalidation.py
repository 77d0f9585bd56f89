"""Invalidation of cached keys in every gateway process, published over Redis.

An error is logged only: without Redis the processes shorten the lifetime of their entries by themselves.
"""

import logging
from uuid import UUID

import redis
from django.conf import settings

from codexflow.lib.redis import sync_client
from keys.models import ApiKey

logger = logging.getLogger(__name__)

CHANNEL = f"{settings.ENV.redis_prefix}:keys"
ALL = "*"
MAX_LOGGED = 20


def invalidate_key(public_id: str) -> None:
    """Drop one key from the caches of all processes."""
    _publish(public_id)


def invalidate_organization(organization_id: UUID) -> None:
    """Drop an organization's keys from the caches of all processes: its plan, its credit or a limit changed."""
    keys = ApiKey.objects.filter(organization_id=organization_id, revoked_at=None)
    _publish(*keys.values_list("public_id", flat=True))


def invalidate_all() -> None:
    """Drop every key from the caches of all processes: something changed that may concern any of them."""
    _publish(ALL)


def _publish(*public_ids: str) -> None:
    if not public_ids:
        return
    try:
        with sync_client(settings.ENV.redis_shared_url).pipeline(transaction=False) as pipeline:
            for each in public_ids:
                pipeline.publish(CHANNEL, each)
            pipeline.execute()
    except redis.RedisError:
        logger.exception("keys.invalidation_failed", extra={"public_ids": public_ids[:MAX_LOGGED]})
