"""Holds: the most that a call can cost, before it runs. Pure."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from billing.pricing import BASIS_POINTS, TOKENS_PER_RATE, FrozenRates
from codexflow.catalogue.entries import OUTPUT_PARTS, PriceDetails, Tier
from codexflow.lib.money import round_div

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


# A search unit is a query with up to so many documents, as Cohere bills; a longer document counts once for every chunk
# of so many tokens, the query included.
DOCUMENTS_PER_SEARCH_UNIT = 100
TOKENS_PER_CHUNK = 500


def search_units(query_tokens: int, documents_tokens: Iterable[int]) -> int:
    """Search units of a query and its documents. A query is taken to fill at most half of a chunk."""
    room = TOKENS_PER_CHUNK - min(query_tokens, TOKENS_PER_CHUNK // 2)
    chunks = sum([max(1, -(-tokens // room)) for tokens in documents_tokens])
    return max(1, -(-chunks // DOCUMENTS_PER_SEARCH_UNIT))


class CallSize(Struct, frozen=True, kw_only=True):
    """Bounds of a call's tokens, before they are counted."""

    text_bytes: int
    messages: int = 0
    images: int = 0
    file_tokens: int = 0
    audio_tokens: int = 0
    units: dict[str, int] | None = None  # of the call itself, or of the tools that the provider runs, at most
    max_output_tokens: int  # already clamped, and sent upstream as such
    choices: int = 1
    expected_units: dict[str, int] | None = None  # of the call itself: an estimate, for calls without reported usage
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

    The dearest counts, since only one attempt is billed; and for each the dearest of the tiers that its prompt may
    reach, with everything of the dearest class that it can be of.
    """
    prompt, completion = size.prompt_tokens, size.completion_tokens
    return max([_worst_of(size, prompt, completion, each) for each in rates])


def _worst_of(size: CallSize, prompt: int, completion: int, rates: FrozenRates) -> int:
    details = rates.details
    millionths = _dearest_millionths(size, prompt, completion, rates, details)
    if details is not None:
        for tier in details.tiers:
            if prompt >= tier.from_tokens:
                millionths = max(millionths, _dearest_millionths(size, prompt, completion, tier, details))
    return round_div(millionths * (BASIS_POINTS + rates.margin_bp), TOKENS_PER_RATE * BASIS_POINTS)


def _dearest_millionths(
    size: CallSize, prompt: int, completion: int, prices: FrozenRates | Tier, details: PriceDetails | None
) -> int:
    """Bound of `billing.pricing.price_lines` at these prices, in nanos times a million."""
    input_nanos, output_nanos, more = prices.input_nanos, prices.output_nanos, 0
    write_nanos = prices.cache_write_1h_nanos if size.may_cache_for_an_hour else prices.cache_write_nanos
    if write_nanos is not None and write_nanos > input_nanos:
        input_nanos = write_nanos
    if details is not None and (details.part_nanos or details.unit_nanos):
        parts = details.part_nanos
        more = max(0, parts.get("audio_input", 0) - input_nanos) * size.audio_tokens
        more += max(0, parts.get("image_input", 0) - input_nanos) * size.images * TOKENS_PER_IMAGE
        output_nanos = max([output_nanos, *(parts.get(name, 0) for name in OUTPUT_PARTS)])
        units = (size.units or {}).items()
        more += TOKENS_PER_RATE * sum([most * details.unit_nanos.get(name, 0) for name, most in units])
    return prompt * input_nanos + completion * output_nanos + more


def no_dearer_than_first(size: CallSize, rates: Mapping[str, FrozenRates]) -> tuple[dict[str, FrozenRates], int]:
    """Models of a chain that cost at most as much as its first one, in order, and the hold for them.

    A dearer fallback must not refuse a call that the first model could serve: without the dearer ones it may fit.
    """
    holds = {model: worst_nanos(size, [each]) for model, each in rates.items()}
    first = next(iter(holds.values()))
    return {model: rates[model] for model, hold in holds.items() if hold <= first}, first
