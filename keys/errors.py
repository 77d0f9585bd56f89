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
    """The key is right, but its organization or its owner is suspended."""

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


class TooManyKeys(AppError):
    """The plan allows no more working keys. `facts["limit"]` says how many."""

    code = "too_many_keys"
    status = HTTPStatus.CONFLICT
    kind = "invalid_request_error"
    default_message = "The plan allows no more keys. Revoke one that is not used."
