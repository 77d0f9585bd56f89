"""AppError -> what the caller sees: OpenAI's envelope, as SDKs need it."""

import logging
from typing import Any

import msgspec
from rest_framework.exceptions import APIException
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


class _Foreign(AppError):
    """An error of the REST framework in our own shape."""

    def __init__(self, exc: APIException) -> None:
        super().__init__(str(exc.detail) if not isinstance(exc.detail, dict | list) else "The request is not valid.")


def drf_exception_handler(exc: Exception, _context: dict[str, Any]) -> Response | None:
    """Every failure of the management API in the one envelope. None lets Django show its 500."""
    if isinstance(exc, AppError):
        error: AppError = exc
        status = int(exc.status)
    elif isinstance(exc, APIException):
        status = exc.status_code
        known: type[AppError] = NotFound if status == 404 else BadRequest
        error = known(_Foreign(exc).message)
    else:
        return None
    response = Response(envelope(error), status=status)
    for name, value in headers_of(error):
        if name != b"content-type":
            response[name.decode()] = value.decode()
    return response
