"""Most tokens of a request, whatever its text is: for money, which may refuse it, and for tokens a minute. Pure.

The texts that are worst, and how many tokens a byte of them can be, are measured by tests/tokens.
"""

import re
import string
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from billing.limiter.holds import (
    MOST_TOKENS_PER_IMAGE,
    TOKENS_FOR_INSTRUCTIONS,
    TOKENS_PER_CALL,
    TOKENS_PER_KNOWN_TOOL,
    TOKENS_PER_MESSAGE,
    Bound,
    CallSize,
)
from codexflow.lib.complexity import without_strings
from routing.surfaces import tools
from routing.surfaces.attachments import is_inline_image
from routing.surfaces.body import ParsedRequest
from routing.surfaces.requests import RequestSchema

# Forms into which tokenizers bring a text first; the second makes a ligature of 3 bytes a sentence of 33.
_FORMS: tuple[Literal["NFC", "NFKC"], ...] = ("NFC", "NFKC")
MOST_BYTES_OF_A_BYTE = 11
# Tools, and what was said to them and by them, reach a model as JSON that others write: with white space behind each
# sign, which may be a line break and an indentation; with 1e15 written out; and with characters escaped, in up to three
# times their bytes.
TOKENS_PER_SIGN = 2
TOKENS_PER_EXPONENT = 16
MOST_BYTES_ESCAPED = 3
_EXPONENT = re.compile(rb"[0-9.][eE]")
_NOT_ASCII = bytes(range(0x80, 0x100))
# Fields that make a provider add instructions of its own.
_INSTRUCTING = frozenset({"tools", "functions", "response_format", "text", "output_format", "output_config"})
# Anthropic's and OpenAI's compaction: the model reads the conversation once more, and writes its summary.
_COMPACTING = "context_management"
# OpenAI charges what it wrote ahead and threw away as output.
_PREDICTION = "prediction"
_SEARCH_UNIT = "search_unit"
# A twentieth of a provider's count is held besides: Anthropic calls its counts estimates that may be off a little.
COUNT_MARGIN = 20

# Bytes that are at most half a token each in runs, in every vocabulary that was measured. Others may be a whole one.
_LIGHT = (string.ascii_lowercase + " ").encode()
# A text that is at most this part of a minute's tokens is not looked at: a token a byte is reserved.
_SMALL_PART = 32


def _decoded(body: bytes) -> bytes | None:
    """Write a body without escapes that are not needed; None when it has what cannot be read, such as 1e999."""
    try:
        decoded: Any = msgspec.json.decode(body)
        return msgspec.json.encode(decoded)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _growth(body: bytes, schema: RequestSchema, *, may_be_escaped: bool) -> int:
    """Return by how many bytes a body grows when it is normalized, or the characters inside of objects are escaped."""
    if body.isascii():
        return 0
    text = body.decode()
    growth = max(0, *(len(unicodedata.normalize(form, text).encode()) - len(body) for form in _FORMS))
    if may_be_escaped:
        escaped = _not_ascii(body) - sum([_not_ascii(each.encode()) for each in schema.plain_texts()])
        growth += max(0, escaped) * (MOST_BYTES_ESCAPED - 1)
    return growth


def _not_ascii(text: bytes) -> int:
    return 0 if text.isascii() else len(text) - len(text.translate(None, _NOT_ASCII))


def _structure_tokens(body: bytes) -> int:
    """Return the tokens of what is put between values, and of numbers that are written out."""
    outside = b"".join(without_strings(body))
    signs = sum([outside.count(sign) for sign in (b",", b":", b"{", b"[")])
    return signs * TOKENS_PER_SIGN + len(_EXPONENT.findall(outside)) * TOKENS_PER_EXPONENT


def _added_tokens(request: ParsedRequest, size: CallSize) -> int:
    """Return the tokens of what a provider writes around a conversation and into it."""
    added = TOKENS_PER_CALL + TOKENS_PER_MESSAGE * size.messages
    if not _INSTRUCTING.isdisjoint(request.fields):
        added += TOKENS_FOR_INSTRUCTIONS + TOKENS_PER_KNOWN_TOOL * tools.known_tools(request.fields)
    return added


def windows_of(request: ParsedRequest) -> int:
    """Return how often a request may fill a model's context: for each text, and each time that a model reads it."""
    windows = request.schema.windows + tools.rounds_of(request.hosted)
    return 2 * windows if _COMPACTING in request.fields else windows


def bounded(body: bytes, request: ParsedRequest, size: CallSize, contexts: Mapping[str, int]) -> CallSize:
    """Return the size of a call with its bound. `contexts` has how many tokens each of its models reads at most."""
    fields, schema = request.fields, request.schema
    has_escapes = b"\\u" in body
    is_instructed = not _INSTRUCTING.isdisjoint(fields)
    seen = _decoded(body) if has_escapes else body
    if seen is None:
        seen, growth = body, len(body) * (MOST_BYTES_OF_A_BYTE - 1)
    else:
        growth = _growth(seen, schema, may_be_escaped=is_instructed or schema.has_objects)
    text, units = size.text_bytes + growth, size.units
    if growth and units is not None and _SEARCH_UNIT in units:
        units = {**units, _SEARCH_UNIT: units[_SEARCH_UNIT] * MOST_BYTES_OF_A_BYTE}
    if size.text_bytes > len(body):  # the surface counts a part of the text several times
        text = size.text_bytes * (MOST_BYTES_OF_A_BYTE if growth else 1)
    elif not request.attachments:
        text = len(seen) + growth
    text += _added_tokens(request, size)
    if schema.has_objects:
        text += _structure_tokens(body)
    elif is_instructed:
        text += sum([_structure_tokens(bytes(fields[name])) for name in _INSTRUCTING.intersection(fields)])
    completion = size.completion_tokens
    if _PREDICTION in fields:
        completion += len(memoryview(fields[_PREDICTION])) * size.choices
    if _COMPACTING in fields:
        text, completion = 2 * text + completion, 2 * completion
    are_inline = [is_inline_image(each) for each in request.attachments]
    bound = Bound(
        text_tokens=text,
        image_tokens=MOST_TOKENS_PER_IMAGE * len(are_inline),
        fills_context=not all(are_inline) or tools.rounds_of(request.hosted) > 0 or schema.declares_tools(),
        windows=windows_of(request),
        completion_tokens=completion,
        contexts=contexts,
    )
    # Both words of an hour of cache may be written with escapes.
    may_cache_for_an_hour = size.may_cache_for_an_hour or has_escapes
    return msgspec.structs.replace(size, bound=bound, units=units, may_cache_for_an_hour=may_cache_for_an_hour)


def is_bound_by_text(size: CallSize) -> bool:
    """Return whether a size has a bound that nothing but text and what goes with it makes, and no count yet."""
    bound = size.bound
    return bound is not None and not bound.fills_context and not bound.image_tokens and size.counted_tokens is None


def counted(size: CallSize, request: ParsedRequest, *, rest: bytes, count: int) -> CallSize:
    """Return the size of a call whose text a provider has counted, but for `rest`, which is held a token a byte.

    What providers add is held besides, as if it was not in the count. Never less is held than where money refuses
    nothing, and never more than without a count. `size` must have a bound of text only.
    """
    bound = size.bound
    assert bound is not None  # noqa: S101 - without a bound there is nothing to count for
    seen = _decoded(rest) if b"\\u" in rest else rest
    if seen is None:
        text = len(rest) * MOST_BYTES_OF_A_BYTE
    else:
        text = len(seen) + _growth(seen, RequestSchema(), may_be_escaped=True)
    text += _structure_tokens(rest) + _added_tokens(request, size) + count + count // COUNT_MARGIN
    if _COMPACTING in request.fields:
        text = 2 * text + bound.completion_tokens // 2
    text = min(bound.text_tokens, max(size.prompt_tokens, text))
    bound = msgspec.structs.replace(bound, text_tokens=text)
    return msgspec.structs.replace(size, bound=bound, counted_tokens=count)


def reserved_tokens(body: bytes, size: CallSize, tokens_per_minute: int) -> int:
    """Return the tokens to reserve of a minute's: a token a byte, or closer where that is a good part of them."""
    text = size.text_bytes
    if 0 <= tokens_per_minute < text * _SMALL_PART and text == len(body):
        text = (text + len(body.translate(None, _LIGHT)) + 1) // 2
    return text + TOKENS_PER_MESSAGE * size.messages + size.attached_tokens + size.completion_tokens
