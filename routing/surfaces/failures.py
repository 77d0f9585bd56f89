"""Errors inside responses with status 200, in the forms of all providers. Pure.

None of these fields is in an event or a body that says something, so only objects that say nothing are looked at.
"""

from collections.abc import Mapping
from typing import Any

from routing.surfaces import sse

_EVENTS = frozenset({"error", "exception"})
_FIELDS = frozenset(
    {"error", "errors", "error_code", "error_message", "error_msg", "error_type", "errorMessage", "detail"}
)
_KINDS = frozenset({"object", "type", "status", "event"})
_FAILED = frozenset({"error", "failed"})
# Beside one of these, a message is one of an error: Alibaba's, Zhipu's, Cohere's and Amazon's.
_WORDS = frozenset({"message", "msg", "Message"})
_REASONS = ("code", "request_id", "__type")
_TOLD = _FIELDS | _KINDS | _WORDS | {"success", "base_resp"}


def is_error_name(raw: bytes) -> bool:
    """Return whether an event is an error by its name, whatever its data is."""
    return b"event:" in raw and sse.name_of(raw) in _EVENTS


def tells_error(payload: Any) -> bool:
    """Return whether an object without content is an error. One that says nothing, such as null or "", is none."""
    if isinstance(payload, list):  # Gemini's
        return any(isinstance(each, dict) and bool(each.get("error")) for each in payload)
    if not isinstance(payload, Mapping):
        return False
    # Every stream ends with such an object, its usage, which has one of these names: "object".
    if any(_is_error(name, payload) for name in _TOLD.intersection(payload)):
        return True
    return "Exception" in "".join(payload) and any(name.endswith("Exception") for name in payload)  # Bedrock


def _is_error(name: str, payload: Mapping[str, Any]) -> bool:
    value = payload[name]
    if name in _KINDS:
        return isinstance(value, str) and value in _FAILED
    if name == "success":
        return value is False
    if name == "base_resp":  # MiniMax
        return isinstance(value, Mapping) and bool(value.get("status_code"))
    return bool(value) and (name in _FIELDS or any(map(payload.get, _REASONS)))
