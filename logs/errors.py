"""Why an export is not to be had."""

from http import HTTPStatus

from codexflow.lib.errors import AppError


class TooManyExports(AppError):
    """The organization has as many exports waiting and running as it may."""

    code = "too_many_exports"
    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "invalid_request_error"
    default_message = "Too many exports are waiting. Wait until one is done, or cancel one."
    may_retry = True


class ExportNotReady(AppError):
    """There is no file: not yet, or no longer going to be."""

    code = "export_not_ready"
    status = HTTPStatus.CONFLICT
    kind = "invalid_request_error"
    default_message = "This export has no file: it is not done."


class ExportExpired(AppError):
    """The file was there and is not any more."""

    code = "export_expired"
    status = HTTPStatus.GONE
    kind = "invalid_request_error"
    default_message = "The file of this export has expired. Ask for it again."
