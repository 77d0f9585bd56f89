"""What the schema of the management API says of every operation."""

from typing import Any

_ERROR = {
    "type": "object",
    "description": "Every failure, as docs/errors.md lists them. `code` is permanent.",
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
FAILURE = "default"


def with_failures(result: dict[str, Any], **_about: Any) -> dict[str, Any]:
    """A hook of drf-spectacular: each operation may also fail, always in the same shape."""
    result["components"]["schemas"]["Error"] = _ERROR
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for operations in result["paths"].values():
        for operation in operations.values():
            told = operation["responses"]
            told[FAILURE] = {"description": "It failed."}
            for status, answer in told.items():
                if status == FAILURE or status >= "400":
                    answer.setdefault("content", content)
    return result
