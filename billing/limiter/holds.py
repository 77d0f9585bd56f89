"""Holds: the most that a call can cost, before it runs. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from billing.pricing import FrozenRates, Usage, cost_nanos
from codexflow.catalogue.entries import INPUT_PARTS, OUTPUT_PARTS, PriceDetails

TOKENS_PER_MESSAGE = 16
TOKENS_PER_IMAGE = 2_000
# A file's tokens can only be estimated from its bytes: a page is a few kilobytes of text or hundreds of a scan, and no
# model reads more than its context.
MIN_TOKENS_PER_FILE, MAX_TOKENS_PER_FILE = 2_000, 200_000
BYTES_PER_DOCUMENT_TOKEN = 16
BYTES_PER_AUDIO_TOKEN = 256


def document_tokens(size_bytes: int) -> int:
    """Tokens to hold for a document, or any other file that is neither an image nor audio."""
    return min(MAX_TOKENS_PER_FILE, max(MIN_TOKENS_PER_FILE, size_bytes // BYTES_PER_DOCUMENT_TOKEN))


def sound_tokens(size_bytes: int) -> int:
    """Tokens to hold for an audio file."""
    return min(MAX_TOKENS_PER_FILE, max(MIN_TOKENS_PER_FILE, size_bytes // BYTES_PER_AUDIO_TOKEN))


class CallSize(Struct, frozen=True, kw_only=True):
    """Bounds of a call's tokens, before they are counted."""

    text_bytes: int
    messages: int = 0
    images: int = 0
    file_tokens: int = 0
    audio_tokens: int = 0
    units: dict[str, int] | None = None  # of the tools that the provider runs, at most
    max_output_tokens: int  # already clamped, and sent upstream as such
    choices: int = 1
    # The call may ask the provider's cache to keep the input for an hour, which costs more than for minutes.
    may_cache_for_an_hour: bool = False

    @property
    def prompt_tokens(self) -> int:
        """Upper bound of the input. No tokenizer in use makes more than one token of two bytes of ordinary text."""
        return (self.text_bytes + 1) // 2 + TOKENS_PER_MESSAGE * self.messages + self.attached_tokens

    @property
    def attached_tokens(self) -> int:
        """Tokens of images, files and recordings."""
        return TOKENS_PER_IMAGE * self.images + self.file_tokens + self.audio_tokens

    @property
    def completion_tokens(self) -> int:
        return self.max_output_tokens * self.choices

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def expected_prompt_tokens(self) -> int:
        """Estimate rather than a bound, for calls without reported usage."""
        return self.text_bytes // 4 + 4 * self.messages + self.attached_tokens // 2


def worst_nanos(size: CallSize, rates: Iterable[FrozenRates]) -> int:
    """Most that a call can cost, in nanos, over the models that may serve it.

    The dearest counts, since only one attempt is billed; and for each the dearest class of its input, and the dearest
    of the tiers that its prompt may reach.
    """
    return max([_worst_of(size, each) for each in rates])


def _worst_of(size: CallSize, rates: FrozenRates) -> int:
    details = rates.details
    if details is None or not details.tiers or size.prompt_tokens < details.tiers[0].from_tokens:
        return cost_nanos(_dearest_usage(size, rates), rates)
    return max([cost_nanos(_dearest_usage(size, each), each) for each in _reachable(size, rates, details)])


def _reachable(size: CallSize, rates: FrozenRates, details: PriceDetails) -> Iterator[FrozenRates]:
    """The usual prices and every tier that the bound of the prompt reaches, each as if it were the only one."""
    flat = PriceDetails(part_nanos=details.part_nanos, unit_nanos=details.unit_nanos)
    yield replace(rates, details=flat)
    for tier in details.tiers:
        if size.prompt_tokens >= tier.from_tokens:
            yield FrozenRates(
                input_nanos=tier.input_nanos,
                cached_nanos=tier.cached_nanos,
                output_nanos=tier.output_nanos,
                cache_write_nanos=tier.cache_write_nanos,
                cache_write_1h_nanos=tier.cache_write_1h_nanos,
                margin_bp=rates.margin_bp,
                details=flat,
            )


def _dearest_usage(size: CallSize, rates: FrozenRates) -> Usage:
    """Usage of the whole size that costs most: everything is of the dearest class that it can be of."""
    prompt, completion = size.prompt_tokens, size.completion_tokens
    write_nanos = rates.cache_write_1h_nanos if size.may_cache_for_an_hour else rates.cache_write_nanos
    details = _dearest_details(size, rates, rates.details) if rates.details is not None else None
    if write_nanos is None or write_nanos <= rates.input_nanos:
        return Usage(prompt_tokens=prompt, completion_tokens=completion, details=details)
    written = prompt - sum((details or {}).get(name, 0) for name in INPUT_PARTS)
    return Usage(
        prompt_tokens=prompt,
        cache_write_tokens=written,
        cache_write_1h_tokens=written if size.may_cache_for_an_hour else 0,
        completion_tokens=completion,
        details=details,
    )


def _dearest_details(size: CallSize, rates: FrozenRates, details: PriceDetails) -> dict[str, int]:
    """Units that may be used, and parts where they are dearer than the ordinary tokens that they may be instead."""
    if not details.part_nanos and not details.unit_nanos:
        return {}  # units without a price cost nothing
    input_nanos = max(rates.input_nanos, rates.cache_write_nanos or 0, rates.cache_write_1h_nanos or 0)
    attached = {"audio_input": size.audio_tokens, "image_input": size.images * TOKENS_PER_IMAGE}
    prices = details.part_nanos
    found = {name: tokens for name, tokens in attached.items() if prices.get(name, 0) > input_nanos}
    dearest = max(OUTPUT_PARTS, key=lambda name: prices.get(name, 0))
    if prices.get(dearest, 0) > rates.output_nanos:
        found[dearest] = size.completion_tokens
    return found | (size.units or {})


def no_dearer_than_first(size: CallSize, rates: Mapping[str, FrozenRates]) -> tuple[dict[str, FrozenRates], int]:
    """Models of a chain that cost at most as much as its first one, in order, and the hold for them.

    A dearer fallback must not refuse a call that the first model could serve: without the dearer ones it may fit.
    """
    holds = {model: _worst_of(size, each) for model, each in rates.items()}
    first = next(iter(holds.values()))
    return {model: rates[model] for model, hold in holds.items() if hold <= first}, first
