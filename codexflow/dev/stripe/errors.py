"""Errors as Stripe's API writes them."""

from typing import Any


class ApiError(Exception):
    """An error of the API, with its status and type."""

    def __init__(self, message: str, *, status: int = 400, kind: str = "invalid_request_error", **facts: Any) -> None:
        self.status = status
        self.body = {"error": {"type": kind, "message": message, **facts}}
        super().__init__(message)


def missing(kind: str, object_id: str) -> ApiError:
    """No object of this kind has this id."""
    return ApiError(f"No such {kind}: '{object_id}'", status=404, code="resource_missing", param="id")
