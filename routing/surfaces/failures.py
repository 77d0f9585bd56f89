"""Errors inside responses with status 200, in the forms of all providers. Pure.

None of these fields is in an event or a body that says something, so only objects that say nothing are looked at.
"""

from collections.abc import Mapping
from typing import Any

from routing.surfaces import sse

_EVENTS = frozenset({"error", "exception"})
_FIELDS = ("error", "errors", "error_code", "error_message", "error_msg", "error_type", "errorMessage", "detail")
_KINDS = ("object", "type", "status", "event")
_FAILED = frozenset({"error", "failed"})
# Beside one of these, a message is one of an error: Alibaba's, Zhipu's, Cohere's and Amazon's.
_WORDS = ("message", "msg", "Message")
_REASONS = ("code", "request_id", "__type")


def is_error_name(raw: bytes) -> bool:
    """Return whether an event is an error by its name, whatever its data is."""
    return b"event:" in raw and sse.name_of(raw) in _EVENTS


def tells_error(payload: Any) -> bool:
    """Return whether an object without content is an error. One that says nothing, such as null or "", is none."""
    if isinstance(payload, list):  # Gemini's
        return any(isinstance(each, dict) and bool(each.get("error")) for each in payload)
    if not isinstance(payload, Mapping):
        return False
    if any(payload.get(name) for name in _FIELDS) or payload.get("success") is False:
        return True
    if any(isinstance(payload.get(name), str) and payload[name] in _FAILED for name in _KINDS):
        return True
    if any(payload.get(name) for name in _WORDS) and any(payload.get(name) for name in _REASONS):
        return True
    base = payload.get("base_resp")  # MiniMax
    if isinstance(base, Mapping) and base.get("status_code"):
        return True
    return any(name.endswith("Exception") for name in payload)  # Bedrock
