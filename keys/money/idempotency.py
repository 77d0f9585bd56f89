"""`Idempotency-Key`: the same call again gets the same answer, and nothing is booked twice.

The answer is stored in the transaction that books, so there is both or neither. Two of the same at once meet at the
row's unique key: the second waits for the first and gets its answer. A refused call stores nothing and may be repeated.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
from django.db import IntegrityError, transaction
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Organization
from codexflow.lib.errors import BadRequest
from keys.errors import IdempotencyKeyReused
from keys.models import IdempotentCall, OperatorKey

HEADER = "Idempotency-Key"
MAX_CHARS = 255
KEPT = timedelta(hours=48)
# Of the response that was given before.
REPLAYED = {"Idempotent-Replayed": "true"}


def once(
    request: Request,
    work: Callable[[], dict[str, Any]],
    *,
    organization: Organization | None = None,
    operator_key: OperatorKey | None = None,
    is_required: bool = False,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Do the work of a call in a transaction, or return what it returned before. Returns the result and headers.

    Keys are the caller's own: an organization's, or those of an operator's key. Raises IdempotencyKeyReused, and
    BadRequest for a key that is missing or has no form.
    """
    key = request.headers.get(HEADER, "").strip()
    if not key and not is_required:
        with transaction.atomic():
            return work(), {}
    if not 1 <= len(key) <= MAX_CHARS or not key.isascii() or not key.isprintable():
        raise BadRequest(f"Send a header {HEADER} of 1 to {MAX_CHARS} characters.", param=HEADER)
    digest = _digest(request)
    owner = {"organization": organization, "operator_key": operator_key, "key": key}
    try:
        with transaction.atomic():
            call = IdempotentCall.objects.create(**owner, digest=digest)
            call.result = work()
            call.save(update_fields=["result"])
            return call.result, {}
    except IntegrityError:
        known = IdempotentCall.objects.filter(**owner).first()
        if known is None:
            raise  # of the work itself
    if bytes(known.digest) != digest:
        raise IdempotencyKeyReused(param=HEADER)
    return known.result, REPLAYED


def _digest(request: Request) -> bytes:
    """Digest of endpoint and body, however the body's JSON is written."""
    try:
        body = msgspec.json.encode(dict(request.data), order="sorted")
    except UnicodeEncodeError:  # half a surrogate, in a field that nobody reads
        body = json.dumps(request.data, sort_keys=True).encode()
    return sha256(b"%b %b %b" % ((request.method or "").encode(), request.path.encode(), body)).digest()


def forget_calls(at: datetime) -> int:
    """Delete answers that need not be kept any longer. Returns how many."""
    deleted, _ = IdempotentCall.objects.filter(created_at__lt=at - KEPT).delete()
    return deleted


def answered(result: dict[str, Any], headers: dict[str, str], *, status: int) -> Response:
    """Respond with a result that may have been given before."""
    # jsonb has an order of its own: sorted, both answers are the same bytes.
    return Response(dict(sorted(result.items())), status=status, headers=headers)
