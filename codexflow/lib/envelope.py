"""AppError -> the body a caller sees: OpenAI's envelope, or Anthropic's, as SDKs need them. Pure."""

from typing import Any

from codexflow.lib.errors import AppError


def envelope(error: AppError) -> dict[str, Any]:
    """`{"error": {...}}` as OpenAI writes it."""
    return {
        "error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code},
    }


# Anthropic's `error.type` by status, where it is another than OpenAI's.
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_envelope(error: AppError) -> dict[str, Any]:
    """`{"type": "error", "error": {...}}` as Anthropic writes it; our stable `code` stands beside its type."""
    status = int(error.status)
    kind = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    fields: dict[str, Any] = {"type": kind, "message": error.message, "code": error.code, "param": error.param}
    if error.unsupported:
        fields["details"] = {"error_code": error.code, "unsupported": error.unsupported}
    return {"type": "error", "error": fields}
