"""AppError -> what the caller sees: OpenAI's envelope, as SDKs need it."""

import logging
from typing import Any

import msgspec
from django.http import Http404
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response

from codexflow.lib.errors import AppError, BadRequest, NotFound

logger = logging.getLogger(__name__)

Header = tuple[bytes, bytes]


def envelope(error: AppError) -> dict[str, Any]:
    """`{"error": {...}}` as OpenAI writes it."""
    return {
        "error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code},
    }


def body_of(error: AppError) -> bytes:
    return msgspec.json.encode(envelope(error))


def headers_of(error: AppError) -> list[Header]:
    """Headers that go with an error whatever the surface."""
    headers: list[Header] = [(b"content-type", b"application/json")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(0, error.retry_after_s)))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def drf_exception_handler(exc: Exception, _context: dict[str, Any]) -> Response | None:
    """Every failure of the management API in the one envelope. None lets Django show its 500."""
    if isinstance(exc, AppError):
        error: AppError = exc
        status = int(exc.status)
    elif isinstance(exc, APIException | Http404):
        error, status = _renamed(exc)
    else:
        return None
    response = Response(envelope(error), status=status)
    for name, value in headers_of(error):
        if name != b"content-type":
            response[name.decode()] = value.decode()
    return response


def _renamed(exc: APIException | Http404) -> tuple[AppError, int]:
    """The REST framework's own errors: bad input names its fields, the rest keeps its words."""
    if isinstance(exc, Http404):
        return NotFound(), 404
    if isinstance(exc, ValidationError) and isinstance(exc.detail, dict):
        fields = {name: " ".join(map(str, found)) for name, found in exc.detail.items()}
        message = " ".join(f"{name}: {text}" for name, text in fields.items())
        return BadRequest(message, param=next(iter(fields), None)), exc.status_code
    words = exc.detail if isinstance(exc.detail, str) else "The request is not valid."
    return (NotFound() if exc.status_code == 404 else BadRequest(str(words))), exc.status_code
