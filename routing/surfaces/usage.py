"""Usage as providers report it, in the fields of any surface. Pure."""

from typing import Any

from msgspec import Struct

from billing.pricing import Usage

# More is a mistake of the provider, and would not fit the columns.
MAX_TOKENS = 1_000_000_000
NO_USAGE = Usage()


class _Details(Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    # LiteLLM's names for tokens written to a cache.
    cache_creation_tokens: int | None = None
    cache_creation_token_details: Any = None  # as `cache_creation` below


class ProviderUsage(Struct):
    """`usage` as OpenAI, Anthropic and LiteLLM write it.

    Chat, completions and embeddings use prompt and completion; responses and messages use input and output. On
    messages alone, tokens read from or written to a cache are not part of the input.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    # Tokens written to a cache, by its lifetime.
    cache_creation: Any = None
    cost: Any = None  # LiteLLM's is a number; some providers write an object, and their response is valid all the same
    # Set by a format whose streams report the input first: the output follows.
    is_only_input: bool = False

    @property
    def produced(self) -> int:
        return self.completion_tokens or self.output_tokens or 0

    def tokens(self, begun: Usage = NO_USAGE) -> Usage | None:
        """Return the classes of tokens; None without usage: LiteLLM writes zeros when the provider gave none.

        The input of `begun` counts where it was reported earlier in the stream and is not repeated.
        """
        details = self.prompt_tokens_details or self.input_tokens_details
        output = self.completion_tokens_details or self.output_tokens_details
        cached = details.cached_tokens if details else 0
        written = (details.cache_creation_tokens if details else None) or self.cache_creation_input_tokens
        by_lifetime = (details.cache_creation_token_details if details else None) or self.cache_creation
        prompt = self.prompt_tokens
        if prompt is None:
            prompt = self.input_tokens or 0
            if details is None:
                cached = self.cache_read_input_tokens
                prompt += (cached or 0) + (written or 0)
        if not prompt:
            prompt, cached, written = begun.prompt_tokens, begun.cached_tokens, begun.cache_write_tokens
        completion = self.produced
        if min(prompt, completion) < 0 or not 0 < prompt + completion <= MAX_TOKENS:
            return None
        cached = _part(cached, prompt)
        written = _part(written, prompt - cached)
        # The end of a stream repeats how much was written, not the lifetime.
        for_an_hour = by_lifetime.get("ephemeral_1h_input_tokens") if isinstance(by_lifetime, dict) else None
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=cached,
            cache_write_tokens=written,
            cache_write_1h_tokens=_part(begun.cache_write_1h_tokens if for_an_hour is None else for_an_hour, written),
            reasoning_tokens=_part(output.reasoning_tokens if output else 0, completion),
        )


def _part(tokens: Any, whole: int) -> int:
    return min(max(0, tokens), whole) if isinstance(tokens, int) else 0
