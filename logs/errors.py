"""Errors of exports and stored content."""

from http import HTTPStatus

from codexflow.lib.errors import AppError


class TooManyExports(AppError):
    """The organization has its maximum of waiting and running exports."""

    code = "too_many_exports"
    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "invalid_request_error"
    default_message = "Too many exports are waiting. Wait until one is done, or cancel one."
    may_retry = True


class ExportNotReady(AppError):
    """The export has no file: it is not done, or it failed or was cancelled."""

    code = "export_not_ready"
    status = HTTPStatus.CONFLICT
    kind = "invalid_request_error"
    default_message = "This export has no file: it is not done."


class ExportFileMissing(AppError):
    """The export is done, and its file is not in this process's folder: web and workers do not share it."""

    code = "export_file_missing"
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    default_message = "The file of this export cannot be found. Please tell the operator of this installation."


class ContentNotKept(AppError):
    """The request has no stored content: it was off, has expired, or was lost."""

    code = "content_not_kept"
    status = HTTPStatus.NOT_FOUND
    kind = "invalid_request_error"
    default_message = "Prompt and answer of this request are not kept."


class ExportExpired(AppError):
    """The file has expired."""

    code = "export_expired"
    status = HTTPStatus.GONE
    kind = "invalid_request_error"
    default_message = "The file of this export has expired. Ask for it again."
