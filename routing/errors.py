"""Errors of the gateway."""

from collections.abc import Collection, Iterable, Set
from datetime import date, timedelta
from http import HTTPStatus
from typing import Any, ClassVar, Literal, Self

from codexflow.lib.errors import AppError, BadRequest, NotFound, bounded_wait_s


class NotOffered(AppError):
    """The request names something that nobody may ask for; the message lists what may be asked for instead."""

    def for_key(self, permitted: Collection[str]) -> Self:
        """Return the error with a list of what a key may use: anything else would be refused as well."""
        what = self.facts.get("what", self.message)
        return type(self)(f"{what}. {_permitted('key may use', permitted)}", param=self.param)


class PlannerDisabled(BadRequest):
    """The caller asks for a plan, and there is no planner."""

    code = "planner_disabled"
    default_message = "There is no planner here: leave `x-decompose` out, or send 0."


class InvalidPlannerHeader(BadRequest):
    """A header of the planner has a value without a meaning."""

    code = "invalid_planner_header"
    default_message = "`x-decompose` must be 1, 0 or dry-run, and `x-quality` fast, deep or auto."


class PlanNotFound(NotFound):
    """The caller names a plan that is not kept, or not for this conversation."""

    code = "plan_not_found"
    default_message = (
        "There is no such plan for this conversation. Plans are kept for an hour, and the messages must be the same."
    )


class InvalidMaxCost(BadRequest):
    """The `x-max-cost` header is no amount."""

    code = "invalid_max_cost"
    default_message = "`x-max-cost` must be an amount of US dollars, such as 0.25."


class MaxCostExceeded(AppError):
    """The call could cost more than the caller's `x-max-cost`."""

    code = "max_cost_exceeded"
    status = HTTPStatus.PAYMENT_REQUIRED
    kind = "insufficient_quota"
    outlasts_retries = True
    default_message = "This request could cost more than `x-max-cost`."


class InvalidStage(NotOffered, BadRequest):
    """The stage header names no stage."""

    code = "invalid_stage"
    default_message = "There is no such stage."

    @classmethod
    def named(cls, stage: str, allowed: Iterable[str]) -> Self:
        what = f"There is no stage {_quoted(stage)}"
        return cls(f"{what}. Allowed: {', '.join(allowed)}.", param="X-CFX-Stage", what=what)


class InvalidTag(BadRequest):
    """The request's tag has a form that tags do not have."""

    code = "invalid_tag"
    default_message = "A tag has 1 to 64 characters: letters A-Z and a-z, digits, and . _ : / @ -"


class ModelNotAllowed(NotOffered, BadRequest):
    """The body's model is not one that callers may use."""

    code = "model_not_allowed"
    default_message = "The model is not allowed."

    @classmethod
    def named(cls, model: str | None, allowed: Iterable[str]) -> Self:
        what = f"The model {_quoted(model)} is not allowed" if model else "The request names no model"
        return cls(f"{what}. Allowed: {', '.join(allowed) or 'none'}.", param="model", what=what)


class ModelRetired(NotOffered, NotFound):
    """The model is over, and no successor serves calls for it."""

    code = "model_retired"
    default_message = "The model is no longer served."

    @classmethod
    def named(cls, model: str, end: date | None, others: Iterable[str]) -> Self:
        since = f" since {end + timedelta(days=1)}" if end is not None and end < date.max else ""
        what = f"The model {_quoted(model)} is no longer served{since}"
        return cls(f"{what}.{_instead(others)}", param="model", what=what)

    @classmethod
    def of_stage(cls, stage: str, others: Iterable[str]) -> Self:
        what = f"No model of the stage {stage} is served any more"
        return cls(f"{what}.{_instead(others)}", param="model", what=what)


class ModelNotPriced(BadRequest):
    """The model has no price, and what has no price is not sold."""

    code = "model_not_priced"
    default_message = "The model has no price and cannot be used yet."


class ToolNotSold(BadRequest):
    """The request chose a tool that the provider carries out and that has no price, and so is not sold."""

    code = "tool_not_sold"
    default_message = "The tool runs at the provider and has no price."

    @classmethod
    def named(cls, tool: str, place: str, model: str, sold: Iterable[str]) -> Self:
        sold = ", ".join(sold)
        message = (
            f"{_quoted(tool)} runs at the provider and has no price for {model}, so it is not carried out. "
            "Remove it, or offer a function that your own program runs."
        )
        return cls(f"{message} Sold for this model: {sold}." if sold else message, param=place)


class StageNotAllowedForKey(AppError):
    """The stage exists, but this key may not use it."""

    code = "stage_not_allowed"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "This key may not use this stage."

    @classmethod
    def named(cls, stage: str, permitted: Collection[str]) -> Self:
        return cls(
            f"This key may not use the stage {_quoted(stage)}. {_permitted('key may use the stages', permitted)}"
        )


class ModelNotAllowedForKey(AppError):
    """The model exists, but this key may not use it."""

    code = "model_not_allowed_for_key"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "This key may not use this model."

    @classmethod
    def named(cls, asked: str | None, model: str, permitted: Collection[str]) -> Self:
        """Name the model as the caller asked for it, and the one that this means where it is another."""
        means = f" ({model})" if asked and asked != model else ""
        what = f"This key may not use the model {_quoted(asked or model)}{means}"
        return cls(f"{what}. {_permitted('key may use', permitted)}")


class SurfaceNotAllowedForKey(AppError):
    """The endpoint exists, but this key is for others."""

    code = "surface_not_allowed"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "This key may not use this endpoint."

    @classmethod
    def named(cls, endpoint: str, permitted: Collection[str]) -> Self:
        return cls(
            f"This key may not use the endpoint {_quoted(endpoint)}. "
            f"{_permitted('key may use the endpoints', permitted)}"
        )


class UpstreamUnavailable(AppError):
    """Every attempt failed, or every model of the chain has an open circuit."""

    code = "upstream_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "The models behind this request are not available right now. Try again in a moment."
    may_retry = True

    @classmethod
    def of(cls, models: Collection[str], *, retry_after_s: int, is_operators: bool = False, **facts: Any) -> Self:
        """Build the error of these models; `is_operators`: waiting a moment does not help, nor does another request."""
        if is_operators:
            advice = "Nothing is wrong with the request, and the operator has been notified. Use another model for now."
        else:
            advice = f"Retry in {bounded_wait_s(retry_after_s)} s."
        return cls(f"{_named(models)} not available right now. {advice}", retry_after_s=retry_after_s, **facts)


class UpstreamTimeout(AppError):
    """No attempt responded in time."""

    code = "upstream_timeout"
    status = HTTPStatus.GATEWAY_TIMEOUT
    default_message = "The models behind this request did not answer in time."
    may_retry = True


def _named(models: Collection[str]) -> str:
    """Begin a sentence about a model, or about those of a stage, with its verb."""
    if len(models) == 1:
        return f"The model {next(iter(models))} is"
    return (
        f"The models behind this request ({', '.join(models)}) are" if models else "The models behind this request are"
    )


MAX_NAMES = 30


def _permitted(what: str, names: Collection[str]) -> str:
    """Say what a key may use; of many the first."""
    shown = sorted(names) if isinstance(names, Set) else list(names)
    more = f" and {len(shown) - MAX_NAMES} more" if len(shown) > MAX_NAMES else ""
    return f"This {what}: {', '.join(shown[:MAX_NAMES]) or 'nothing'}{more}."


def _instead(others: Iterable[str]) -> str:
    names = ", ".join(others)
    return f" Use instead: {names}." if names else ""


def _quoted(name: str) -> str:
    """Quote a name of the caller, shortened: it may be as long as a body."""
    return repr(name if len(name) <= 100 else name[:100] + "…")


class InvalidJson(BadRequest):
    """The body is not JSON."""

    code = "invalid_json"
    default_message = "The body is not valid JSON."


class InvalidRequestBody(BadRequest):
    """The body is JSON, but not a request that this endpoint understands."""


class ThreadsUnsupported(BadRequest):
    """The request names a stored conversation. Anthropic's SDKs know this code and continue without."""

    code = "thread_unsupported_request"
    default_message = "No conversations are kept here: send all messages, without `thread`."
    unsupported = ("thread",)


class CompactionUnreadable(BadRequest):
    """A compaction item that was not made here: nobody here knows the conversation that it stands for."""

    code = "compaction_unreadable"

    @classmethod
    def at(cls, place: str) -> Self:
        return cls(
            f"The compaction item at {place} was not made here, so the conversation that it stands for cannot be read. "
            "Send the conversation itself, or begin a new one.",
            param=place,
        )


class BadHeader(BadRequest):
    """A decisive header was given twice or cannot be read."""

    code = "invalid_header"


class UnknownRoute(NotFound):
    """There is nothing at this path."""

    code = "unknown_route"
    default_message = "There is no such endpoint."


class MethodNotAllowed(AppError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    status = HTTPStatus.METHOD_NOT_ALLOWED
    kind = "invalid_request_error"
    default_message = "This endpoint does not answer that method."

    def __init__(self, *allowed: str) -> None:
        super().__init__(f"Allowed: {', '.join(allowed)}." if allowed else None)
        self.allowed = allowed


class UpgradeRefused(AppError):
    """The request is for a WebSocket. After a 426 Codex uses HTTP at once; after a 405 it tries five times more."""

    code = "websockets_unsupported"
    status = HTTPStatus.UPGRADE_REQUIRED
    kind = "invalid_request_error"
    default_message = "There are no WebSockets here: send the request over HTTP."


class RequestTooLarge(AppError):
    """The body is larger than this installation takes."""

    code = "request_too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "invalid_request_error"
    default_message = "The request body is too large."


class UploadLimitExceeded(AppError):
    """The bodies that one sender is sending at once take more than its part of the room."""

    code = "upload_limit_exceeded"
    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "rate_limit_error"
    default_message = "Too many bytes of request bodies are being sent at once: wait until some have arrived."
    may_retry = True


class UploadsFull(AppError):
    """All senders together are sending more than this process has room for."""

    code = "uploads_full"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "Too many request bodies are being received right now. Try again in a moment."
    may_retry = True


class UnsupportedCoding(AppError):
    """The body has a content coding that is not unpacked here."""

    code = "unsupported_content_encoding"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    kind = "invalid_request_error"
    default_message = "The body's `Content-Encoding` must be gzip, deflate or zstd, one of them, or be left out."


class HeadersTooLarge(AppError):
    """Too many headers, or too long ones."""

    code = "headers_too_large"
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    kind = "invalid_request_error"
    default_message = "The request headers are too large."


class UrlTooLong(AppError):
    """The URL is longer than any of ours."""

    code = "url_too_long"
    status = HTTPStatus.REQUEST_URI_TOO_LONG
    kind = "invalid_request_error"
    default_message = "The URL is too long."


class RequestTimeout(AppError):
    """The body did not arrive in time."""

    code = "request_timeout"
    status = HTTPStatus.REQUEST_TIMEOUT
    kind = "invalid_request_error"
    default_message = "The request body did not arrive in time."


class ShuttingDown(AppError):
    """This process is shutting down; another one, or its successor, will serve the call."""

    code = "shutting_down"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "This server is restarting. Try again in a moment."
    may_retry = True


class ClientDisconnected(AppError):
    """The caller left before the response was complete. Only the log shows this."""

    code = "client_disconnected"
    # nginx's convention; HTTPStatus has no name for it.
    status = 499  # type: ignore[assignment]
    default_message = "The client disconnected."


class StreamBroken(AppError):
    """The upstream's stream broke after its first byte; it travels inside the stream."""

    code = "upstream_stream_broken"
    status = HTTPStatus.BAD_GATEWAY
    default_message = "The model's stream broke off before it was complete."
    may_retry = True


class UpstreamFailure(AppError):
    """One attempt failed before its first byte.

    `may_retry`: the same model may be tried once more. `trips_breaker`: counts against the model's circuit.
    """

    code = "upstream_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    trips_breaker: ClassVar[bool] = True
    # The upstream's own status; 0 when it gave none.
    upstream_status = 0


class ConnectFailed(UpstreamFailure):
    """No connection to the upstream."""

    code = "upstream_connect_failed"
    may_retry = True


class UpstreamBroken(UpstreamFailure):
    """The connection was lost, or the bytes received are not HTTP."""

    code = "upstream_broken"
    may_retry = True


class UpstreamSilent(UpstreamFailure):
    """No response in time. A retry of the same model would only double the wait."""

    code = "upstream_timeout"
    status = HTTPStatus.GATEWAY_TIMEOUT


class UpstreamInvalid(UpstreamFailure):
    """An invalid success: HTML, broken JSON, a redirect, compressed or empty content."""

    code = "upstream_invalid_answer"


# Why a 4xx is the operator's to mend: the model is missing at the provider or in LiteLLM, or our own key or account was
# refused.
Cause = Literal["model_missing", "account_refused"]


class UpstreamFaulty(UpstreamFailure):
    """A 5xx of the upstream, or a 4xx about our own key or account with it, which is not the caller's fault."""

    code = "upstream_error"

    def __init__(
        self,
        upstream_status: int,
        *,
        cause: Cause | None = None,
        trips_breaker: bool = True,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(upstream_status=upstream_status, retry_after_s=retry_after_s)
        self.cause = cause
        self.trips_breaker = trips_breaker  # type: ignore[misc]
        self.upstream_status = upstream_status
        # Per instance: only these three mean that a retry may help, unless they ask for a longer wait than a retry's.
        self.may_retry = upstream_status in (502, 503, 504) and (retry_after_s or 1) <= 1  # type: ignore[misc]


class UpstreamBusy(UpstreamFailure):
    """The upstream's 429: another model may have room, the same one has not."""

    code = "upstream_rate_limited"
    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "rate_limit_error"
    default_message = "The model is over its own rate limit. Try again later."
    trips_breaker = False
    upstream_status = 429

    @classmethod
    def of(cls, models: Collection[str], *, retry_after_s: int) -> Self:
        message = f"{_named(models)} over the provider's rate limit. Retry in {bounded_wait_s(retry_after_s)} s."
        return cls(message, retry_after_s=retry_after_s)


class UpstreamRefused(AppError):
    """The upstream's 4xx: the request itself is at fault, so its message is passed on, scrubbed."""

    code = "upstream_refused"
    status = HTTPStatus.BAD_REQUEST
    kind = "invalid_request_error"

    def __init__(self, upstream_status: int, message: str, *, code: str, param: str | None) -> None:
        super().__init__(message, param=param)
        self.status = upstream_status  # type: ignore[misc,assignment]
        self.code = code  # type: ignore[misc]
