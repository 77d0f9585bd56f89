"""Telling every gateway process that a key is no longer what it was."""

import logging

import redis
from django.conf import settings

from codexflow.lib.redis import sync_client

logger = logging.getLogger(__name__)

CHANNEL = f"{settings.ENV.redis_prefix}:keys"
ALL = "*"


def key_changed(public_id: str) -> None:
    """Have all processes forget one key. When Redis is down they distrust their caches by themselves."""
    try:
        sync_client(settings.ENV.redis_url).publish(CHANNEL, public_id)
    except redis.RedisError:
        logger.exception("keys.notice_failed", extra={"public_id": public_id})


def all_changed() -> None:
    """Have all processes forget every key: a plan, an organization or a person changed."""
    key_changed(ALL)
