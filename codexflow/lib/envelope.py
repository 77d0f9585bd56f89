"""Error bodies: AppError -> OpenAI's or Anthropic's envelope, as SDKs expect them. Pure."""

from typing import Any

from codexflow.lib.errors import AppError


def envelope(error: AppError) -> dict[str, Any]:
    """Error body in OpenAI's format: `{"error": {...}}`."""
    return {
        "error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code},
    }


# Anthropic's `error.type` by status, where it differs from OpenAI's.
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
    """Error body in Anthropic's format, `{"type": "error", "error": {...}}`, with our permanent `code` added."""
    status = int(error.status)
    kind = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    fields: dict[str, Any] = {"type": kind, "message": error.message, "code": error.code, "param": error.param}
    if error.unsupported:
        fields["details"] = {"error_code": error.code, "unsupported": error.unsupported}
    return {"type": "error", "error": fields}
