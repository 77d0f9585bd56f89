"""AppError: the root of every error that a caller may see.

`code` is public and permanent, the message may be reworded, `facts` reach only the log.
The wire format of an error depends on the surface: `lib/envelope.py`.
"""

from http import HTTPStatus
from typing import Any, ClassVar

from typing_extensions import override

# Clients obey Retry-After literally: agents have hung for hours, without a word, on one until midnight.
MAX_RETRY_AFTER_S = 60


def bounded_wait_s(wait_s: int) -> int:
    """Return the wait that a caller is told, in headers and messages alike."""
    return min(max(0, wait_s), MAX_RETRY_AFTER_S)


def _sendable(text: str) -> str:
    """Write halves of surrogate pairs as JSON does: a message may quote the caller, and UTF-8 has none."""
    return text.encode("utf-8", "backslashreplace").decode()


class AppError(Exception):
    """An error with a public code. Subclasses set `code`, `status`, `kind` and `default_message`.

    `param` names the request's faulty field, `retry_after_s` becomes Retry-After; `facts` are logged only.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    # OpenAI's `error.type`.
    kind: ClassVar[str] = "server_error"
    default_message: ClassVar[str] = "Something went wrong on our side."
    # Another attempt at the same call may succeed.
    may_retry: ClassVar[bool] = False
    # It lasts longer than a client can wait: no Retry-After, and SDKs are told not to retry.
    outlasts_retries: ClassVar[bool] = False
    # Requested features that are not supported: Anthropic's SDKs read the list and retry without them.
    unsupported: ClassVar[tuple[str, ...]] = ()
    # Methods that the path supports, for the Allow header of a 405.
    allowed: tuple[str, ...] = ()

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        **facts: Any,
    ) -> None:
        self.message = _sendable(message or self.default_message)
        self.param = _sendable(param) if param else param
        self.retry_after_s = retry_after_s
        self.facts = facts
        super().__init__(self.message)

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, status={int(self.status)}, facts={self.facts!r})"


def default_message_of(code: str) -> str:
    """Return the message that errors of a code have by default; empty for codes whose messages differ.

    Only classes that are loaded are known: those of the gateway are in every web process.
    """
    kinds = [AppError]
    for kind in kinds:
        if kind.code == code and "default_message" in vars(kind):
            return kind.default_message
        kinds += kind.__subclasses__()
    return ""


class BadRequest(AppError):
    """The request is malformed or cannot be served as it is."""

    code = "invalid_request"
    status = HTTPStatus.BAD_REQUEST
    kind = "invalid_request_error"
    default_message = "The request is not valid."


class NotFound(AppError):
    """The object does not exist or belongs to another organization: the response is the same."""

    code = "not_found"
    status = HTTPStatus.NOT_FOUND
    kind = "invalid_request_error"
    default_message = "Not found."


class DatabaseUnavailable(AppError):
    """PostgreSQL is away or does not respond. Said by pages and the management API; the gateway has its own words."""

    code = "database_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "The database does not respond. Try again in a moment."
    may_retry = True
