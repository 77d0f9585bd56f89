"""AppError -> headers, and the management API's answers."""

import logging
from typing import Any

from django.http import Http404
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response

from codexflow.lib.envelope import envelope
from codexflow.lib.errors import AppError, BadRequest, NotFound

logger = logging.getLogger(__name__)

Header = tuple[bytes, bytes]
# Where the scope of a request has our server's exchange without ASGI's messages, if it is our server.
DIRECT_EXTENSION = "codexflow.direct"


def headers_of(error: AppError) -> list[Header]:
    """Headers that go with an error whatever the surface."""
    headers: list[Header] = [(b"content-type", b"application/json")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(0, error.retry_after_s)))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.allowed:
        headers.append((b"allow", ", ".join(error.allowed).encode()))
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
        fields = {name: _words(found) for name, found in exc.detail.items()}
        message = " ".join(f"{name}: {text}" for name, text in fields.items())
        return BadRequest(message, param=next(iter(fields), None)), exc.status_code
    words = exc.detail if isinstance(exc.detail, str) else "The request is not valid."
    return (NotFound() if exc.status_code == 404 else BadRequest(str(words))), exc.status_code


def _words(detail: Any) -> str:
    """What the framework says of one field, of a list's items too, in one line."""
    if isinstance(detail, dict):
        return " ".join(map(_words, detail.values()))
    return " ".join(map(_words, detail)) if isinstance(detail, list) else str(detail)
