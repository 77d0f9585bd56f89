"""Prompt cache of the demo models: beginnings of prompts that a model has read before.

As at the providers: Claude's models cache up to the marks (`cache_control`) that the request has, and count what they
write; all others cache by themselves whatever begins alike, and count only what they read. Beginnings are compared by
their bytes, and only those of a thousand tokens and more are kept.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

MIN_TOKENS = 1024
_MARK = "cache_control"
_MARKED = "claude"
_CHARS_PER_TOKEN = 4
_MAX_BEGINNINGS = 10_000


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Tokens of a prompt that came from the cache, and those that went into it."""

    read_tokens: int = 0
    written_tokens: int = 0


NOT_CACHED = CacheUse()


@dataclass(slots=True)
class PromptCache:
    """The beginnings that were read last."""

    _known: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    def use(self, model: str, body: Mapping[str, Any], *, prompt_tokens: int) -> CacheUse:
        """Count what the cache has of a prompt, and take the prompt in."""
        is_marked = _MARKED in model  # OpenRouter puts the vendor in front
        beginnings = [
            (digest, min(prompt_tokens, tokens))
            for digest, tokens, has_mark in _beginnings(model, body)
            if tokens >= MIN_TOKENS and (has_mark or not is_marked)
        ]
        read = max([tokens for digest, tokens in beginnings if digest in self._known], default=0)
        for digest, _tokens in beginnings:
            self._known[digest] = None
            self._known.move_to_end(digest)
        while len(self._known) > _MAX_BEGINNINGS:
            self._known.popitem(last=False)
        written = max([tokens for _digest, tokens in beginnings], default=0) - read
        return CacheUse(read, written if is_marked else 0)


def _beginnings(model: str, body: Mapping[str, Any]) -> Iterator[tuple[bytes, int, bool]]:
    """Yield a digest of each beginning of the prompt, its tokens, and whether it ends with a mark."""
    blocks = [
        block for name in ("tools", "system", "instructions", "messages", "input") for block in _blocks(body, name)
    ]
    digest, chars = hashlib.sha256(model.encode()), 0
    for number, block in enumerate(blocks):
        has_mark = isinstance(block, dict) and _MARK in block
        plain = {name: value for name, value in block.items() if name != _MARK} if has_mark else block
        written = msgspec.json.encode(plain)
        digest.update(written)
        chars += len(written)
        # A mark of the whole request stands at its end.
        yield digest.digest(), chars // _CHARS_PER_TOKEN, has_mark or (_MARK in body and number == len(blocks) - 1)


def _blocks(body: Mapping[str, Any], name: str) -> Iterator[Any]:
    """Yield the parts of a field in order: tools, texts, and the parts of messages."""
    value = body.get(name)
    for each in value if isinstance(value, list) else [value] if value else []:
        if isinstance(each, dict) and isinstance(each.get("content"), list):
            yield {key: part for key, part in each.items() if key not in ("content", _MARK)}
            yield from each["content"]
            if _MARK in each:
                yield {_MARK: each[_MARK]}
        else:
            yield each
