"""Why a caller is not let in."""

from http import HTTPStatus

from codexflow.lib.errors import AppError


class InvalidApiKey(AppError):
    """No key, or none that works from here now. One answer for all, so that nothing can be learned from it."""

    code = "invalid_api_key"
    status = HTTPStatus.UNAUTHORIZED
    kind = "invalid_request_error"
    default_message = "Invalid API key"


class AccountSuspended(AppError):
    """The key is right, but its organization or who made it is suspended."""

    code = "account_suspended"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "This account is suspended."


class AuthenticationUnavailable(AppError):
    """The key is not known here yet and the database cannot be asked."""

    code = "authentication_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "server_error"
    default_message = "Keys cannot be checked right now. Try again in a moment."
    may_retry = True


class ActionNotAllowed(AppError):
    """The caller belongs here, but its role does not include this."""

    code = "action_not_allowed"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "Your role, or this key's scope, does not allow this."


class ProofRequired(AppError):
    """A session that was begun long ago asks for what only its owner may have."""

    code = "reauthentication_required"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "You signed in long ago. Say who you are once more at /accounts/reauthenticate/, then try again."


class KeyLimitReached(AppError):
    """The plan's number of keys is used up."""

    code = "key_limit_reached"
    status = HTTPStatus.FORBIDDEN
    kind = "permission_error"
    default_message = "The plan's number of API keys is used up. Revoke one, or change the plan."


class LimitAbovePlan(AppError):
    """A key may narrow what the plan allows, never widen it."""

    code = "limit_above_plan"
    status = HTTPStatus.BAD_REQUEST
    kind = "invalid_request_error"
    default_message = "The plan does not allow that much."


class KeyNotRotatable(AppError):
    """Only a key that works, and is not being rotated, can have a successor."""

    code = "key_not_rotatable"
    status = HTTPStatus.CONFLICT
    kind = "invalid_request_error"
    default_message = "Only a key that works, and is not being rotated, can be rotated."


class KeyNotChangeable(AppError):
    """A key that was revoked stays as it was."""

    code = "key_not_changeable"
    status = HTTPStatus.CONFLICT
    kind = "invalid_request_error"
    default_message = "The key was revoked and cannot be changed."
