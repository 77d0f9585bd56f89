"""Errors of the limiter."""

from http import HTTPStatus

from codexflow.lib.errors import AppError


class RateLimitExceeded(AppError):
    """A limit on requests or tokens refused the call; waiting helps."""

    code = "rate_limit_exceeded"
    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "rate_limit_error"
    default_message = "Too many requests this minute."


class DailyQuotaExceeded(RateLimitExceeded):
    """The day's requests (UTC) are used up."""

    code = "daily_quota_exceeded"
    outlasts_retries = True
    default_message = "The daily request limit is used up. It resets at 00:00 UTC."


class TokenRateExceeded(RateLimitExceeded):
    """Too many tokens this minute."""

    code = "token_rate_exceeded"
    default_message = "Too many tokens this minute."


class ConcurrencyExceeded(RateLimitExceeded):
    """Too many streams are open at once."""

    code = "concurrency_limit_exceeded"
    default_message = "Too many streams are open at once. Wait until one has ended."


class InsufficientQuota(AppError):
    """Credit or budget does not cover the most that this call could cost."""

    code = "insufficient_quota"
    status = HTTPStatus.PAYMENT_REQUIRED
    kind = "insufficient_quota"
    outlasts_retries = True
    default_message = "The credit or budget left does not cover this request."


class LimiterUnavailable(AppError):
    """Limits cannot be checked right now; a hard budget then refuses rather than guesses."""

    code = "limiter_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "server_error"
    default_message = "Limits cannot be checked right now. Try again in a moment."
    may_retry = True


class LimiterAway(LimiterUnavailable):
    """Redis does not respond: calls without a hard budget may go on within bounds (billing.limiter.fallback)."""
