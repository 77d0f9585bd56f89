"""Compaction of a conversation on responses: a summary in its place, written by the model that the caller asks. Pure.

Providers of OpenAI's API compact on their side: at an endpoint of its own, or for an input item that asks for it. They
return one item whose content only they can read. Here a model summarizes, as for any call, and the item holds its
summary in an envelope that is written out again where it comes back in later input. Nothing is kept in between.
"""

import base64
import binascii
import hashlib
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from routing.errors import CompactionUnreadable

# Without these bytes a body has neither an item that asks for a compaction nor one that is its result.
MARK = b"compaction"
TRIGGER = "compaction_trigger"
# The second is what Codex called it first; the third also stands for a compaction that left nothing behind.
_RESULTS = ("compaction", "compaction_summary")
_RESULT_OR_SIGN = "context_compaction"
_ENVELOPE = "cfxc1."

PROMPT = """\
Summarize this conversation for the model that goes on with it: it will read your summary in place of the conversation.
Keep the user's requests and constraints in their own words; what was done and decided, and why; files, commands, names
and values that matter, exactly as they are; what failed; what is still open, and the next step.
Respond with the summary alone, in the conversation's language. Use no tools."""
PREFIX = "The conversation up to this point was compacted. This is its summary:\n\n"

_encode = msgspec.json.encode
_fields = msgspec.json.Decoder(dict[str, Raw])
_items = msgspec.json.Decoder(list[Raw])
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
# They shape an answer, which a summary is not.
_ABOUT_THE_ANSWER = frozenset({"text", "tool_choice"})


class _Item(Struct):
    type: Any = ""
    encrypted_content: Any = None

    @property
    def is_result(self) -> bool:
        return self.type in _RESULTS or (self.type == _RESULT_OR_SIGN and self.encrypted_content is not None)


_item = msgspec.json.Decoder(_Item)


def written_out(body: bytes, *, at_endpoint: bool) -> tuple[bytes, bool]:
    """Return a body with the summaries that its compaction items hold, and whether it asks for a compaction.

    One that does becomes the request for a summary; `at_endpoint`: it does so by its path. A body that cannot be read
    is returned as it is: what is wrong with it is found later; so is one that needs no change. Raises
    CompactionUnreadable.
    """
    try:
        fields = _fields.decode(body.removeprefix(BOM_UTF8))
        given = fields.get("input", Raw(b"[]"))
        items = _items_of(msgspec.json.decode(given)) if bytes(given)[:1] == b'"' else _items.decode(given)
        kinds = [_item.decode(raw) if MARK in bytes(raw) else _Item() for raw in items]
    except _UNREADABLE:
        return body, at_endpoint
    is_asked = at_endpoint or any(item.type == TRIGGER for item in kinds)
    if not is_asked and not any(item.is_result for item in kinds):
        return body, False  # it only talks of them
    kept = [
        _message(PREFIX + _opened(item, n)) if item.is_result else raw
        for n, (raw, item) in enumerate(zip(items, kinds, strict=True))
        if item.type != TRIGGER
    ]
    if is_asked and kept:
        fields = _for_summary(fields, at_endpoint=at_endpoint)
        kept.append(_message(PROMPT))
    return _encode({**fields, "input": kept}), is_asked


def _for_summary(fields: Mapping[str, Raw], *, at_endpoint: bool) -> dict[str, Raw]:
    """Return the fields of a request for a summary.

    It keeps the tools, though the model shall not use them: some providers refuse calls of tools that are not
    declared, and the prompt's cache begins with them.
    """
    left_out = _ABOUT_THE_ANSWER | {"stream"} if at_endpoint else _ABOUT_THE_ANSWER
    left = {name: raw for name, raw in fields.items() if name not in left_out}
    if bytes(fields.get("tools", b"null")).translate(None, b" \t\r\n") not in (b"null", b"[]"):
        left["tool_choice"] = Raw(b'"none"')
    return left


def _items_of(text: str) -> list[Raw]:
    return [_message(text)] if text else []


def _message(text: str) -> Raw:
    return Raw(_encode({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}))


def item_of(summary: str) -> dict[str, str]:
    """Return the item that stands for a conversation with this summary."""
    envelope = _ENVELOPE + base64.urlsafe_b64encode(summary.encode()).decode()
    name = hashlib.sha256(envelope.encode()).hexdigest()[:32]
    return {"id": f"cmp_{name}", "type": "compaction", "encrypted_content": envelope}


def _opened(item: _Item, n: int) -> str:
    """Return the summary that the nth item holds. Raises CompactionUnreadable."""
    content = item.encrypted_content
    if isinstance(content, str) and content.startswith(_ENVELOPE):
        try:
            return base64.b64decode(content.removeprefix(_ENVELOPE), altchars=b"-_", validate=True).decode()
        except (binascii.Error, ValueError):
            pass
    raise CompactionUnreadable.at(f"input[{n}]")


def summary_in(output: Any) -> str:
    """Return the text of a response's items; empty when it has none."""
    items = output if isinstance(output, list) else []
    lists = [item.get("content") for item in items if isinstance(item, dict) and item.get("type") == "message"]
    parts = [part for parts in lists if isinstance(parts, list) for part in parts if isinstance(part, dict)]
    texts = [part.get("text") for part in parts if part.get("type") == "output_text"]
    return "".join(text for text in texts if isinstance(text, str)).strip()
