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
_REASONS = frozenset({"code", "request_id", "__type"})


def is_error_name(raw: bytes) -> bool:
    """Return whether an event is an error by its name, whatever its data is."""
    return b"event:" in raw and sse.name_of(raw) in _EVENTS


def tells_error(payload: Any) -> bool:
    """Return whether an object without content is an error. One that says nothing, such as null or "", is none."""
    if isinstance(payload, list):  # Gemini's
        return any(isinstance(each, dict) and bool(each.get("error")) for each in payload)
    if not isinstance(payload, Mapping):
        return False
    # Every stream ends with such an object, its usage: one pass over the few names that it has.
    for name, value in payload.items():
        if (value and name in _FIELDS) or name.endswith("Exception"):  # the latter is Bedrock's
            return True
        if name in _KINDS and isinstance(value, str) and value in _FAILED:
            return True
    if payload.get("success") is False:
        return True
    base = payload.get("base_resp")  # MiniMax
    if isinstance(base, Mapping) and base.get("status_code"):
        return True
    return _tells_any(payload, _WORDS) and _tells_any(payload, _REASONS)


def _tells_any(payload: Mapping[str, Any], names: frozenset[str]) -> bool:
    return not names.isdisjoint(payload) and any(payload.get(name) for name in names)
