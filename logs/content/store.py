"""Storage of prompts and responses, for organizations that ask for it: a stream and a table of their own.

Best effort: content is in no usage event and no journal, and what Redis or a worker loses is lost. No text ever
reaches a log or an error.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet
from redis import Redis

from accounts.models import Organization
from codexflow.lib.clock import now
from codexflow.lib.ids import started_at, uuid7_floor
from codexflow.lib.redis import tag
from logs.content.codec import BadContent, Content, Texts, decode, text_of
from logs.models import RequestContent
from logs.pipeline.streams import read_waiting

logger = logging.getLogger(__name__)

GROUP = "content"
FIELD = b"c"
# Maximum length of the stream; the oldest entries beyond it are lost.
MAX_WAITING = 2_000
BATCH = 50
DELETE_BATCH = 500
_LAST_ID = UUID(int=(1 << 128) - 1)


def name_of(prefix: str) -> str:
    """Redis key of the stream. Content is rare and bounded, so all organizations share one."""
    return f"{prefix}:{tag(0)}:content"


# Writing


def save_waiting(redis: "Redis", prefix: str, *, consumer: str, max_rounds: int = 20) -> int:
    """Store waiting contents. Returns how many were new. Raises what Redis and PostgreSQL raise; then retried."""
    stream, saved = name_of(prefix), 0
    for _ in range(max_rounds):
        entries = read_waiting(redis, stream, group=GROUP, consumer=consumer, field=FIELD, count=BATCH)
        if not entries:
            break
        saved += save(_decoded(entries))
        ids = [stream_id for stream_id, _ in entries]
        pipe = redis.pipeline(transaction=False)
        pipe.xack(stream, GROUP, *ids)
        pipe.xdel(stream, *ids)
        pipe.execute()
    return saved


def _decoded(entries: Iterable[tuple[bytes, bytes]]) -> list[Content]:
    contents = []
    for stream_id, payload in entries:
        try:
            contents.append(decode(payload))
        except BadContent:
            logger.error("content.unreadable", extra={"stream_id": stream_id.decode()})  # noqa: TRY400 - the exception adds nothing
    return contents


def save(contents: Sequence[Content]) -> int:
    """Store contents whose organization stores them now; the first of a request stays. Returns how many were new."""
    moment = now()
    storing = Organization.objects.filter(
        pk__in={each.organization_id for each in contents}, content_retention_days__gt=0
    ).in_bulk()
    rows = []
    for each in contents:
        organization = storing.get(each.organization_id)
        since = organization.content_from(moment) if organization else None
        if organization is None or since is None or each.request_id < uuid7_floor(since):
            continue
        rows.append(
            RequestContent(
                request_id=each.request_id,
                organization_id=each.organization_id,
                kept_until=started_at(each.request_id) + timedelta(days=organization.content_retention_days),
                request=each.request.packed,
                response=each.response.packed,
                is_request_cut=each.request.is_cut,
                is_response_cut=each.response.is_cut,
            )
        )
    if not rows:
        return 0
    ids = [row.request_id for row in rows]
    known = set(RequestContent.objects.filter(pk__in=ids).values_list("pk", flat=True))
    RequestContent.objects.bulk_create(rows, ignore_conflicts=True)
    return len(set(ids) - known)


# Reading


def content_of(organization: Organization, request_id: UUID) -> Texts | None:
    """Stored content of the organization's request; None when there is none, or when its retention is over."""
    row = _stored(organization, request_id).first()
    if row is None:
        return None
    shortened = started_at(request_id) + timedelta(days=organization.content_retention_days)
    return Texts(
        request_id=request_id,
        request=text_of(bytes(row.request)),
        response=text_of(bytes(row.response)),
        is_request_cut=row.is_request_cut,
        is_response_cut=row.is_response_cut,
        kept_until=min(row.kept_until, shortened),
    )


def has_content(organization: Organization, request_id: UUID) -> bool:
    """Return whether `content_of` returns any."""
    return _stored(organization, request_id).exists()


def _stored(organization: Organization, request_id: UUID) -> QuerySet[RequestContent]:
    """The row, unless the organization's present retention hides it: the worker may not have deleted it yet."""
    moment = now()
    since = organization.content_from(moment)
    if since is None or request_id < uuid7_floor(since):
        return RequestContent.objects.none()
    return RequestContent.objects.filter(organization=organization, pk=request_id, kept_until__gt=moment)


# Deleting


def delete_expired() -> int:
    """Delete content past its own time or past its organization's present retention. Returns how many requests."""
    moment = now()
    deleted = _delete("kept_until <= %s", [moment])
    rows = RequestContent.objects.filter(organization=OuterRef("pk"))
    for organization in Organization.objects.filter(Exists(rows)):
        since = organization.content_from(moment)
        first = uuid7_floor(since) if since is not None else _LAST_ID
        deleted += _delete("organization_id = %s AND request_id < %s", [organization.pk, first])
    return deleted


def _delete(condition: str, values: list[Any]) -> int:
    """Delete in batches, so that no statement locks many rows for long."""
    total = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM request_content WHERE request_id IN"  # noqa: S608 - constants
                f" (SELECT request_id FROM request_content WHERE {condition} LIMIT %s)",
                [*values, DELETE_BATCH],
            )
            deleted: int = cursor.rowcount
        total += deleted
        if deleted < DELETE_BATCH:
            return total
