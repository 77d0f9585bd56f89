"""Why an export, or a prompt and its answer, is not to be had."""

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


class ContentNotKept(AppError):
    """The request is there, its prompt and answer are not: not wanted, over, or lost on the way."""

    code = "content_not_kept"
    status = HTTPStatus.NOT_FOUND
    kind = "invalid_request_error"
    default_message = "Prompt and answer of this request are not kept."


class ExportExpired(AppError):
    """The file was there and is not any more."""

    code = "export_expired"
    status = HTTPStatus.GONE
    kind = "invalid_request_error"
    default_message = "The file of this export has expired. Ask for it again."
