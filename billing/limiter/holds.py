"""Holds: the most that a call can cost, before it runs. Pure."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from billing.pricing import BASIS_POINTS, TOKENS_PER_RATE, FrozenRates
from codexflow.catalogue.entries import INPUT_PARTS, OUTPUT_PARTS, PriceDetails, Tier
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


# Of calls that money may refuse. What a provider writes around a conversation and into it: the template of its
# messages, and how to use tools or to write in a format (Anthropic documents up to 804 tokens).
TOKENS_PER_CALL = 128
TOKENS_FOR_INSTRUCTIONS = 1_024
# A tool that the provider describes itself, such as a shell (Anthropic documents up to 735 tokens).
TOKENS_PER_KNOWN_TOOL = 1_024
# The dearest image that a provider documents is of gpt-4o-mini: 48,169.
MOST_TOKENS_PER_IMAGE = 50_000
# Context of models whose entry names none.
MOST_CONTEXT_TOKENS = 10_000_000


class Bound(Struct, frozen=True, kw_only=True):
    """Most tokens of a call, whatever its text is: held where money may refuse it.

    No tokenizer makes more than one token of a byte of the text that it has normalized, and no model reads more than
    its context.
    """

    text_tokens: int  # with everything around the text
    image_tokens: int = 0
    # Files, recordings, images from elsewhere, results of hosted tools: only the context bounds them.
    fills_context: bool = False
    windows: int = 1  # how often the context may be filled
    completion_tokens: int
    contexts: Mapping[str, int]  # by model

    def prompt_tokens(self, model: str) -> int:
        """Most tokens of the input for one of the models."""
        most = self.contexts[model] * self.windows
        return most if self.fills_context else min(most, self.text_tokens + self.image_tokens)


class CallSize(Struct, frozen=True, kw_only=True):
    """A call's tokens, before they are counted: as usual, and at most, if money may refuse it."""

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
    bound: Bound | None = None
    counted_tokens: int | None = None  # of the input, by the provider

    @property
    def prompt_tokens(self) -> int:
        """Input as it is held where money refuses nothing. Ordinary text has one token in three to five bytes."""
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

    def guess(self, model: str) -> int:
        """Estimate of the input for one model: never more than is held."""
        expected = self.expected_prompt_tokens if self.counted_tokens is None else self.counted_tokens
        return expected if self.bound is None else min(expected, self.bound.prompt_tokens(model))


def worst_nanos(size: CallSize, rates: Mapping[str, FrozenRates]) -> int:
    """Most that a call can cost, in nanos, over the models that may serve it.

    The dearest counts, since only one attempt is billed; and for each the dearest of the tiers that its prompt may
    reach, with everything of the dearest class that it can be of.
    """
    bound = size.bound
    if bound is None:
        prompt, completion = size.prompt_tokens, size.completion_tokens
        return max([_worst_of(size, prompt, completion, each) for each in rates.values()])
    completion = bound.completion_tokens
    return max([_worst_of(size, bound.prompt_tokens(model), completion, each) for model, each in rates.items()])


def _worst_of(size: CallSize, prompt: int, completion: int, rates: FrozenRates) -> int:
    details = rates.details
    if details is None:  # nearly always
        millionths = prompt * _dearest_input_nanos(size, rates) + completion * rates.output_nanos
    else:
        millionths = _dearest_millionths(size, prompt, completion, rates, details)
        for tier in details.tiers:
            if prompt >= tier.from_tokens:
                millionths = max(millionths, _dearest_millionths(size, prompt, completion, tier, details))
    return round_div(millionths * (BASIS_POINTS + rates.margin_bp), TOKENS_PER_RATE * BASIS_POINTS)


def _dearest_millionths(
    size: CallSize, prompt: int, completion: int, prices: FrozenRates | Tier, details: PriceDetails
) -> int:
    """Bound of `billing.pricing.price_lines` at these prices, in nanos times a million."""
    input_nanos, output_nanos, more = _dearest_input_nanos(size, prices), prices.output_nanos, 0
    if details.part_nanos or details.unit_nanos:
        parts = details.part_nanos
        if size.bound is None:
            more = max(0, parts.get("audio_input", 0) - input_nanos) * size.audio_tokens
            more += max(0, parts.get("image_input", 0) - input_nanos) * size.images * TOKENS_PER_IMAGE
        elif size.bound.fills_context or size.bound.image_tokens:
            input_nanos = max([input_nanos, *(parts.get(name, 0) for name in INPUT_PARTS)])
        output_nanos = max([output_nanos, *(parts.get(name, 0) for name in OUTPUT_PARTS)])
        units = (size.units or {}).items()
        more += TOKENS_PER_RATE * sum([most * details.unit_nanos.get(name, 0) for name, most in units])
    return prompt * input_nanos + completion * output_nanos + more


def _dearest_input_nanos(size: CallSize, prices: FrozenRates | Tier) -> int:
    write_nanos = prices.cache_write_1h_nanos if size.may_cache_for_an_hour else prices.cache_write_nanos
    return prices.input_nanos if write_nanos is None or write_nanos < prices.input_nanos else write_nanos


def no_dearer_than_first(size: CallSize, rates: Mapping[str, FrozenRates]) -> tuple[dict[str, FrozenRates], int]:
    """Models of a chain that cost at most as much as its first one, in order, and the hold for them.

    A dearer fallback must not refuse a call that the first model could serve: without the dearer ones it may fit.
    """
    holds = {model: worst_nanos(size, {model: each}) for model, each in rates.items()}
    first = next(iter(holds.values()))
    return {model: rates[model] for model, hold in holds.items() if hold <= first}, first
