"""The `usage` object of a response, in the provider's own fields, until the call ends. Pure."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from billing.usage import read_usage


class ProviderUsage(Struct, frozen=True):
    """`usage` as a provider wrote it, of any surface; `billing.usage` reads it.

    `is_partial`: reported while output is still to come, such as at the beginning of a stream; its output counts only
    when the stream then ends.
    """

    fields: Mapping[str, Any]
    is_partial: bool = False

    @property
    def produced(self) -> int:
        """Output tokens that it tells of; 0 when it tells none."""
        return read_usage(self.fields).usage.completion_tokens

    @property
    def cost(self) -> object | None:
        """LiteLLM's cost in USD, as written."""
        return self.fields.get("cost")


def usage_in(value: Any, *, is_partial: bool = False) -> ProviderUsage | None:
    """Return a decoded `usage` value as ProviderUsage; None for anything that is no object, such as null or text."""
    return ProviderUsage(value, is_partial) if isinstance(value, dict) else None
