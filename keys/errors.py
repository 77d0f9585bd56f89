"""Errors of authentication, permissions and key management."""

from http import HTTPStatus
from typing import Self

from codexflow.lib.errors import AppError
from keys import secret


class InvalidApiKey(AppError):
    """The key is missing, unknown, or not allowed from this address.

    All cases get the same response, so that it reveals nothing about existing keys. What cannot be a key at all, by its
    form alone, is told so; and who has the whole secret, that it is over.
    """

    code = "invalid_api_key"
    status = HTTPStatus.UNAUTHORIZED
    kind = "invalid_request_error"
    default_message = "Invalid API key"

    @classmethod
    def of_form(cls, presented: str | None) -> Self:
        """Refuse what has not the form of a key. The message never repeats any of it."""
        if not presented:
            return cls()
        if secret.is_shortened(presented):
            return cls("Invalid API key: it is shortened, as lists show keys. Send the whole key, or create a new one.")
        if not presented.startswith(f"{secret.PREFIX}_"):
            return cls(f"Invalid API key: keys begin with `{secret.PREFIX}_`. This one is for another service.")
        if secret.is_cut_off(presented):
            return cls(
                f"Invalid API key: it is incomplete. Keys have {secret.KEY_CHARS} characters; copy the whole key."
            )
        return cls()


class ApiKeyExpired(InvalidApiKey):
    """The key was right, and its time is over: it has expired, or the days after its rotation have."""

    code = "api_key_expired"
    default_message = "Invalid API key: it has expired. Create a new one."


class ApiKeyRevoked(InvalidApiKey):
    """The key was right, and is revoked."""

    code = "api_key_revoked"
    default_message = "Invalid API key: it is revoked. Create a new one."


class AccountSuspended(AppError):
    """The key is valid, but its organization or the user who made it is suspended."""

    code = "account_suspended"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "This account is suspended."


class AuthenticationUnavailable(AppError):
    """The key is not cached in this process and PostgreSQL is unavailable."""

    code = "authentication_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "server_error"
    default_message = "Keys cannot be checked right now. Try again in a moment."
    may_retry = True


class IdempotencyKeyReused(AppError):
    """The same `Idempotency-Key` came with another body, or for another endpoint."""

    code = "idempotency_key_reused"
    status = HTTPStatus.CONFLICT
    kind = "invalid_request_error"
    default_message = "This Idempotency-Key was used with another body. Use a new key for each operation."


class RuleOfMoney(AppError):
    """A rule of orders, refunds or bookings forbids the action; the message says which."""

    code = "money_rule"
    status = HTTPStatus.CONFLICT
    kind = "invalid_request_error"
    default_message = "This cannot be booked."


class ActionNotAllowed(AppError):
    """The caller belongs to the organization, but its role does not include this action."""

    code = "action_not_allowed"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "Your role, or this key's scope, does not allow this."


class ReauthenticationRequired(AppError):
    """The session's last authentication is too old for this action."""

    code = "reauthentication_required"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "You signed in long ago. Re-authenticate at /accounts/reauthenticate/, then try again."


class KeyLimitReached(AppError):
    """The organization has as many keys as its plan allows."""

    code = "key_limit_reached"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "The plan's number of API keys is used up. Revoke one, or change the plan."


class LimitAbovePlan(AppError):
    """A limit of the key exceeds the plan's: a key may only narrow what the plan allows."""

    code = "limit_above_plan"
    status = HTTPStatus.BAD_REQUEST
    kind = "invalid_request_error"
    default_message = "The plan does not allow that much."


class KeyNotRotatable(AppError):
    """The key is not active, or is being rotated already."""

    code = "key_not_rotatable"
    status = HTTPStatus.CONFLICT
    kind = "invalid_request_error"
    default_message = "Only a key that works, and is not being rotated, can be rotated."


class KeyNotChangeable(AppError):
    """The key was revoked and cannot be changed."""

    code = "key_not_changeable"
    status = HTTPStatus.CONFLICT
    kind = "invalid_request_error"
    default_message = "The key was revoked and cannot be changed."


class TooManyReports(AppError):
    """This address has reported more leaked keys within a minute than anybody may."""

    code = "too_many_reports"
    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "rate_limit_error"
    default_message = "Too many reports from this address. Try again in a minute, with up to 100 keys in one request."
