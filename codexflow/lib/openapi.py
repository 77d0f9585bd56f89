"""OpenAPI schema of the management API: the error response of every operation."""

from typing import Any

_ERROR = {
    "type": "object",
    "description": "Error of any operation. docs/errors.md lists the codes, which are permanent.",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": "string", "nullable": True},
                "code": {"type": "string"},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
ERROR_RESPONSE = "default"


def add_error_responses(result: dict[str, Any], **_about: Any) -> dict[str, Any]:
    """Add the error response to every operation; a postprocessing hook of drf-spectacular."""
    result["components"]["schemas"]["Error"] = _ERROR
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for operations in result["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            responses[ERROR_RESPONSE] = {"description": "Error."}
            for status, response in responses.items():
                if status == ERROR_RESPONSE or status >= "400":
                    response.setdefault("content", content)
    return result
