"""Error responses over HTTP: headers of an AppError, and the management API's exception handler."""

import io
import logging
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework.exceptions import APIException, ParseError, ValidationError
from rest_framework.parsers import JSONParser
from rest_framework.response import Response
from typing_extensions import override

from codexflow.lib.asgi import Header
from codexflow.lib.complexity import TooComplex, check_complexity
from codexflow.lib.envelope import envelope
from codexflow.lib.errors import AppError, BadRequest, DatabaseUnavailable, NotFound, bounded_wait_s
from codexflow.lib.exchange import JSON

logger = logging.getLogger(__name__)

# Key in a scope's extensions of the server's `Direct` exchange; absent under other servers.
DIRECT_EXTENSION = "codexflow.direct"
# OpenAI's and Anthropic's SDKs read it before the status.
NO_RETRY: Header = (b"x-should-retry", b"false")
RETRY_DATABASE_AFTER_S = 5


def headers_of(error: AppError) -> list[Header]:
    """Headers of an error response, the same on every surface."""
    headers: list[Header] = [JSON]
    if error.outlasts_retries:
        headers.append(NO_RETRY)
    elif error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % bounded_wait_s(error.retry_after_s)))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.allowed:
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    return headers


class BoundedJSONParser(JSONParser):
    """JSON within the bounds of complexity; what is nested too deeply for any parser is refused like other bad JSON."""

    @override
    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        body = stream.read()
        try:
            check_complexity(body)
            return super().parse(io.BytesIO(body), media_type, parser_context)
        except TooComplex as exc:
            raise ParseError(str(exc)) from exc
        except RecursionError as exc:
            raise ParseError("The body is nested too deeply.") from exc


def drf_exception_handler(exc: Exception, _context: dict[str, Any]) -> Response | None:
    """Turn errors of the management API into OpenAI's envelope. None makes Django respond with its 500."""
    if isinstance(exc, AppError):
        error: AppError = exc
        status = int(exc.status)
    elif isinstance(exc, APIException | Http404):
        error, status = _app_error(exc)
    elif isinstance(exc, OperationalError | InterfaceError):
        error = DatabaseUnavailable(retry_after_s=RETRY_DATABASE_AFTER_S)
        status = int(error.status)
    else:
        return None
    response = Response(envelope(error), status=status)
    for name, value in headers_of(error):
        if name != b"content-type":
            response[name.decode()] = value.decode()
    return response


def _app_error(exc: APIException | Http404) -> tuple[AppError, int]:
    """Convert an error of the REST framework, with its status. Validation errors name their fields."""
    if isinstance(exc, Http404):
        return NotFound(), 404
    if isinstance(exc, ValidationError) and isinstance(exc.detail, dict):
        fields = {name: _joined(found) for name, found in exc.detail.items()}
        message = " ".join(f"{name}: {text}" for name, text in fields.items())
        return BadRequest(message, param=next(iter(fields), None)), exc.status_code
    message = exc.detail if isinstance(exc.detail, str) else "The request is not valid."
    return (NotFound() if exc.status_code == 404 else BadRequest(str(message))), exc.status_code


def _joined(detail: Any) -> str:
    """Join the framework's nested messages of one field into one line."""
    if isinstance(detail, dict):
        return " ".join(map(_joined, detail.values()))
    return " ".join(map(_joined, detail)) if isinstance(detail, list) else str(detail)
