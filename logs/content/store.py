"""Prompts and answers that organizations want kept: from a stream of their own into a table of their own, and out.

Best effort, beside the books: nothing here is in the journal or in a usage event, and what Redis or a worker loses is
lost. Nothing of a text reaches a log or an error.
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
# More waiting than this, and the oldest are lost.
MAX_WAITING = 2_000
BATCH = 50
DELETED_AT_ONCE = 500
_LAST_ID = UUID(int=(1 << 128) - 1)


def name_of(prefix: str) -> str:
    """Rare and bounded, so all organizations share one stream."""
    return f"{prefix}:{tag(0)}:content"


# In


def take_waiting(redis: "Redis", prefix: str, *, consumer: str, max_rounds: int = 20) -> int:
    """Keep what waits. Returns how many were new. Raises what Redis and PostgreSQL raise; then it is read again."""
    stream, kept = name_of(prefix), 0
    for _ in range(max_rounds):
        entries = read_waiting(redis, stream, group=GROUP, consumer=consumer, field=FIELD, count=BATCH)
        if not entries:
            break
        kept += keep(_decoded(entries))
        ids = [stream_id for stream_id, _ in entries]
        pipe = redis.pipeline(transaction=False)
        pipe.xack(stream, GROUP, *ids)
        pipe.xdel(stream, *ids)
        pipe.execute()
    return kept


def _decoded(entries: Iterable[tuple[bytes, bytes]]) -> list[Content]:
    found = []
    for stream_id, payload in entries:
        try:
            found.append(decode(payload))
        except BadContent:
            logger.error("content.unreadable", extra={"stream_id": stream_id.decode()})  # noqa: TRY400 - the exception says no more
    return found


def keep(contents: Sequence[Content]) -> int:
    """Keep those whose organization wants them now; the first of a request stays. Returns how many were new."""
    moment = now()
    wanting = Organization.objects.filter(
        pk__in={each.organization_id for each in contents}, content_retention_days__gt=0
    ).in_bulk()
    rows = []
    for each in contents:
        organization = wanting.get(each.organization_id)
        since = organization.content_from(moment) if organization else None
        if organization is None or since is None or each.request_id < uuid7_floor(since):
            continue
        rows.append(
            RequestContent(
                request_id=each.request_id,
                organization_id=each.organization_id,
                kept_until=started_at(each.request_id) + timedelta(days=organization.content_retention_days),
                request=each.request.packed,
                answer=each.answer.packed,
                is_request_cut=each.request.is_cut,
                is_answer_cut=each.answer.is_cut,
            )
        )
    if not rows:
        return 0
    ids = [row.request_id for row in rows]
    known = set(RequestContent.objects.filter(pk__in=ids).values_list("pk", flat=True))
    RequestContent.objects.bulk_create(rows, ignore_conflicts=True)
    return len(set(ids) - known)


# Out


def content_of(organization: Organization, request_id: UUID) -> Texts | None:
    """What is kept of the organization's request now; None when nothing is."""
    row = _kept(organization, request_id).first()
    if row is None:
        return None
    shortened = started_at(request_id) + timedelta(days=organization.content_retention_days)
    return Texts(
        request_id=request_id,
        request=text_of(bytes(row.request)),
        answer=text_of(bytes(row.answer)),
        is_request_cut=row.is_request_cut,
        is_answer_cut=row.is_answer_cut,
        kept_until=min(row.kept_until, shortened),
    )


def has_content(organization: Organization, request_id: UUID) -> bool:
    """Whether `content_of` has something."""
    return _kept(organization, request_id).exists()


def _kept(organization: Organization, request_id: UUID) -> QuerySet[RequestContent]:
    """The row, unless the organization's word of now hides it: the worker may not have deleted it yet."""
    moment = now()
    since = organization.content_from(moment)
    if since is None or request_id < uuid7_floor(since):
        return RequestContent.objects.none()
    return RequestContent.objects.filter(organization=organization, pk=request_id, kept_until__gt=moment)


# Away


def delete_expired() -> int:
    """Delete what is over: by its own time, or by what its organization wants now. Returns how many requests'."""
    moment = now()
    deleted = _delete("kept_until <= %s", [moment])
    keeping = RequestContent.objects.filter(organization=OuterRef("pk"))
    for organization in Organization.objects.filter(Exists(keeping)):
        since = organization.content_from(moment)
        first = uuid7_floor(since) if since is not None else _LAST_ID
        deleted += _delete("organization_id = %s AND request_id < %s", [organization.pk, first])
    return deleted


def _delete(condition: str, values: list[Any]) -> int:
    """In batches, so that no statement holds many rows for long."""
    total = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM request_content WHERE request_id IN"  # noqa: S608 - constants
                f" (SELECT request_id FROM request_content WHERE {condition} LIMIT %s)",
                [*values, DELETED_AT_ONCE],
            )
            deleted: int = cursor.rowcount
        total += deleted
        if deleted < DELETED_AT_ONCE:
            return total
