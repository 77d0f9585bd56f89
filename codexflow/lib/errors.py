"""AppError: the root of every failure that a caller may see.

`code` is public and permanent, the message may be reworded, `facts` reach only the log.
How an error looks on the wire is decided in `lib/http.py`, by surface.
"""

from http import HTTPStatus
from typing import Any, ClassVar

from typing_extensions import override


class AppError(Exception):
    """A failure with a public code. Subclasses set `code`, `status`, `kind` and `default_message`."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    # OpenAI's `error.type`.
    kind: ClassVar[str] = "server_error"
    default_message: ClassVar[str] = "Something went wrong on our side."
    # Whether another attempt at the same call can help, and how long to wait before it.
    may_retry: ClassVar[bool] = False
    # Features that the request asks for and nobody here has: what Anthropic's SDKs read to go on without them.
    unsupported: ClassVar[tuple[str, ...]] = ()
    # The methods that a path has, when another one was used.
    allowed: tuple[str, ...] = ()

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        **facts: Any,
    ) -> None:
        self.message = message or self.default_message
        self.param = param
        self.retry_after_s = retry_after_s
        self.facts = facts
        super().__init__(self.message)

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, status={int(self.status)}, facts={self.facts!r})"


class BadRequest(AppError):
    """The caller's request cannot be understood or served as it is."""

    code = "invalid_request"
    status = HTTPStatus.BAD_REQUEST
    kind = "invalid_request_error"
    default_message = "The request is not valid."


class NotFound(AppError):
    """There is no such thing, or it belongs to somebody else: the answer is the same."""

    code = "not_found"
    status = HTTPStatus.NOT_FOUND
    kind = "invalid_request_error"
    default_message = "Not found."
