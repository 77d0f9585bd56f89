"""Errors of the webhook."""

from http import HTTPStatus

from codexflow.lib.errors import AppError, BadRequest


class WebhookKeyInvalid(AppError):
    """The key is missing or not active."""

    code = "invalid_webhook_key"
    status = HTTPStatus.UNAUTHORIZED
    kind = "invalid_request_error"
    default_message = "The webhook key is not valid. Send it as X-API-Key."


class WebhookAddressRefused(AppError):
    """The sender's address is not on the allow list."""

    code = "webhook_address_refused"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "Reports are not taken from this address."


class WebhookTooLarge(AppError):
    """A delivery larger than the limit."""

    code = "webhook_too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "invalid_request_error"
    default_message = "The delivery is too large."


class WebhookBusy(AppError):
    """Too many deliveries from one address."""

    code = "webhook_rate_limited"
    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "rate_limit_error"
    default_message = "Too many deliveries from this address. Send more reports with each."


class WebhookUnavailable(AppError):
    """The delivery cannot be stored right now; LiteLLM retries by itself."""

    code = "webhook_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "Reports cannot be taken right now. Try again in a moment."
    may_retry = True


class NotADelivery(BadRequest):
    """The body is neither JSON nor lines of it."""

    code = "invalid_report"
    default_message = "The body is neither JSON nor lines of JSON."
