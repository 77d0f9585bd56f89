"""Read the token counts of any provider into one normal form. Pure.

Providers disagree on what a total includes. OpenAI counts cached input inside the prompt, Anthropic beside it; most
count reasoning inside the completion, xAI and Gemini beside it; cache writes come as a sum, by lifetime, or both;
DeepSeek, Gemini, Bedrock and Cohere have names of their own. `read_usage` turns all of them into classes that add up to
what the provider bills, and says which halves it could not read: those are estimated by whoever calls it, never free.

Numbers come as int, float or text. Anything else (null, a list, NaN, a negative number, a bool) is unknown.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from billing.pricing import FrozenRates, Usage
from codexflow.catalogue.entries import UNITS
from codexflow.lib.numbers import finite_number

# More is a mistake of the provider, and would not fit the columns.
MAX_TOKENS = 1_000_000_000
# Providers round a model's context, and count what they add: so much more than a model reads or writes is believed.
ALLOWED_SHARE, ALLOWED_TOKENS = 10, 2_000
# The most of what is sold by units, such as searches, that is believed of one call: research makes some hundred.
MOST_UNITS = 1_000
# Objects inside of usage objects, of which the deepest known is two levels below.
MAX_MERGED_DEPTH = 8

Fields = Mapping[str, Any]
_USUAL = frozenset(
    {
        "prompt_tokens", "completion_tokens", "total_tokens", "cost",
        "prompt_tokens_details", "completion_tokens_details",
    }
)  # fmt: skip
_USUAL_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_NO_FIELDS: Fields = {}
_COUNTS = tuple(name for name in Usage.__struct_fields__ if name != "details")

# Names of one fact, by provider. Details are objects inside the usage.
# These prompts include cached input; beside the other ones it stands apart, as Anthropic and Bedrock write it.
_PROMPT_WITH_CACHE = ("prompt_tokens", "promptTokenCount", "prompt_token_count", "promptTokens")
_PROMPT = (*_PROMPT_WITH_CACHE, "input_tokens", "inputTokens", "inputTokenCount")
_COMPLETION = (
    "completion_tokens", "output_tokens", "candidatesTokenCount", "candidates_token_count", "completionTokens",
    "outputTokens", "outputTokenCount",
)  # fmt: skip
_TOTAL = ("total_tokens", "totalTokenCount", "total_token_count", "totalTokens")
# Gemini's results of its own tools, which the model reads besides the prompt.
_TOOL_PROMPT = ("toolUsePromptTokenCount", "tool_use_prompt_token_count")
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
# Anthropic's and Bedrock's names, which say that it stands beside the input.
_CACHE_READ_BESIDE = ("cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount")
_CACHE_READ = (
    *_CACHE_READ_BESIDE, "prompt_cache_hit_tokens", "cachedContentTokenCount", "cached_content_token_count",
    "cached_tokens", "num_cached_tokens", "cachedInputTokens",
)  # fmt: skip
_CACHE_READ_DETAIL = ("cached_tokens", "cache_read_tokens")
_CACHE_WRITE = ("cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount")
_CACHE_WRITE_DETAIL = ("cache_creation_tokens", "cache_write_tokens", "cache_creation_input_tokens")
_CACHE_LIFETIMES = ("cache_creation", "cache_creation_token_details")
_REASONING = ("reasoning_tokens", "thinking_tokens", "thoughtsTokenCount", "thoughts_token_count", "reasoningTokens")
# Parts with a price of their own: their field in the details, and their name in Gemini's list by modality.
_INPUT_PARTS = (("audio_input", "audio_tokens", "AUDIO"), ("image_input", "image_tokens", "IMAGE"))
_OUTPUT_PARTS = (("audio_output", "audio_tokens", "AUDIO"), ("image_output", "image_tokens", "IMAGE"))
_INPUT_MODALITIES, _OUTPUT_MODALITIES = "promptTokensDetails", "candidatesTokensDetails"
_SEARCH_UNITS = ("search_units",)
# Cohere's objects inside the usage; what is billed comes first.
_PLACES = ("billed_units", "tokens")
_TOTALS = frozenset(_TOTAL)
# Counts that grow with the output.
OUTPUT_COUNTS = _TOTALS.union(_COMPLETION)
# Anthropic's object of units; LiteLLM also puts them into the details.
UNITS_OBJECT = "server_tool_use"
_WRITE_5M, _WRITE_1H = "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"


class UsageReport(Struct, frozen=True, kw_only=True):
    """Usage in normal form, and which halves of it the provider told.

    An input of 0 is unknown: no call has an empty prompt. An output of 0 is known; whether it can be believed depends
    on what was delivered.
    """

    usage: Usage = Usage()
    is_input_known: bool = False
    is_output_known: bool = False


UNKNOWN = UsageReport()


def count_of(value: Any) -> int | None:
    """Return a number of tokens given as int, float or text; None for anything else."""
    number = finite_number(value)
    return int(number) if number is not None and 0 <= number <= MAX_TOKENS else None


def merged(earlier: Fields, later: Fields, depth: int = MAX_MERGED_DEPTH) -> Fields:
    """Merge two usage objects of one stream field by field: what is absent, null, zero or no count holds from before.

    Anthropic's fields are cumulative, and its last event repeats only some of them. Objects merge by the same rule.
    """
    if not earlier:
        return later
    found = dict(earlier)
    if not _TOTALS.isdisjoint(found) and _tells_new_counts(later):
        found = {name: value for name, value in found.items() if name not in _TOTALS}  # the sum of other counts
    for name, value in later.items():
        before = found.get(name)
        if isinstance(before, Mapping):
            if isinstance(value, Mapping):
                found[name] = merged(before, value, depth - 1) if depth else value
        elif name not in found or count_of(before) is None or count_of(value):
            found[name] = value if value is not None else before
    return found


def _tells_new_counts(later: Fields) -> bool:
    """Return whether a later usage object tells both halves anew."""
    return bool(_first_count(later, _PROMPT) and _first_count(later, _COMPLETION))


def read_usage(raw: Any) -> UsageReport:
    """Read a provider's `usage` object. Returns UNKNOWN for what is no object, or when it tells no count at all.

    `iterations` (Anthropic's compaction and the like) are summed: the counts at the top leave all but the last out.
    """
    if type(raw) is not dict and not isinstance(raw, Mapping):  # an abstract class takes its time
        return UNKNOWN
    if (usual := _read_usual(raw)) is not None:
        return usual
    top = read_exactly(raw)
    iterations = raw.get("iterations")
    if not isinstance(iterations, list):
        return top
    each = [read_exactly(step) for step in iterations if isinstance(step, Mapping)]
    return _largest(top, _sum_of(each)) if each else top


def _read_usual(raw: Fields) -> UsageReport | None:
    """Read the usual object sooner: OpenAI's three counts, which add up, and details that tell of nothing. Else None.

    A tenth of the time of `read_exactly`, which every call of the gateway would pay.
    """
    prompt, completion = raw.get("prompt_tokens"), raw.get("completion_tokens")
    if type(prompt) is not int or type(completion) is not int or prompt <= 0 or completion <= 0:
        return None
    whole = prompt + completion
    if whole > MAX_TOKENS or raw.get("total_tokens") != whole or not raw.keys() <= _USUAL:
        return None
    if len(raw) > len(_USUAL_COUNTS) and (
        _tells_something(raw.get("prompt_tokens_details")) or _tells_something(raw.get("completion_tokens_details"))
    ):
        return None
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
    return UsageReport(usage=usage, is_input_known=True, is_output_known=True)


def is_possible(usage: Usage, *, prompt_tokens: int, completion_tokens: int) -> bool:
    """Return whether a call can have had this usage, when its model reads and writes at most so many tokens."""
    if most_units(usage) > MOST_UNITS:
        return False
    return usage.prompt_tokens <= _allowed(prompt_tokens) and usage.completion_tokens <= _allowed(completion_tokens)


def most_units(usage: Usage) -> int:
    """Return how many units of one kind a usage has at most."""
    return max([usage.details.get(name, 0) for name in UNITS]) if usage.details else 0


def _allowed(most: int) -> int:
    return most + most // ALLOWED_SHARE + ALLOWED_TOKENS


def usage_of_call(meta: Any, usage: Any) -> Fields | None:
    """Return what a reranker or a moderation tells of its usage under the names of chat; None when it tells nothing.

    Cohere and LiteLLM put it into `meta`, by tokens and by what is billed, which comes first; others into `usage`.
    Often only a total is told. There is no output unless one is told.
    """
    meta = _object(meta)
    places = [*(_object(meta.get(name)) for name in _PLACES), _object(usage)]
    prompt, output, total, units = (
        next((count for place in places if (count := _first_count(place, names))), 0)
        for names in (_PROMPT, _COMPLETION, _TOTAL, _SEARCH_UNITS)
    )
    prompt = prompt or max(0, total - output)
    found: dict[str, Any] = {name: value for name, value in _object(usage).items() if name == "cost"}
    if prompt:
        found |= {"prompt_tokens": prompt, "completion_tokens": output}
    if units:
        found["search_unit_requests"] = units
    return found or None


def with_units_of_call(usage: Usage, expected: Mapping[str, int], rates: FrozenRates) -> tuple[Usage, bool]:
    """Complete the usage of a call that may be sold by the piece. Returns whether all that the price counts was told.

    `usage` has only what the provider told, `expected` the estimate of each unit. Every call is one request. A unit
    that the price does not count is not estimated; tokens are counted unless the price has units of the call only.
    """
    told = usage.details or {}
    prices = rates.details.unit_nanos if rates.details else {}
    counted = [name for name in expected if name in prices]
    details = {**told, **{name: told.get(name) or expected[name] for name in counted}}
    is_told = all(name == "request" or told.get(name) for name in counted)
    if not counted or rates.input_nanos:
        is_told = is_told and usage.prompt_tokens > 0
    return replace(usage, details=details or None), is_told


def _tells_something(details: Any) -> bool:
    return bool(details) and (not isinstance(details, dict) or any(details.values()))


def read_exactly(raw: Fields) -> UsageReport:
    """Read one usage object, of any provider, without its iterations."""
    raw = _without_places(raw)
    into, out = _objects(raw, _INPUT_DETAILS), _objects(raw, _OUTPUT_DETAILS)
    prompt, completion, total = (_first_count(raw, names) for names in (_PROMPT, _COMPLETION, _TOTAL))
    if prompt and (of_tools := _first_count(raw, _TOOL_PROMPT)):
        prompt += of_tools
    cached = _largest_count(raw, _CACHE_READ, into, _CACHE_READ_DETAIL)
    written, written_1h = _cache_writes(raw, into)
    reasoning = _largest_count(raw, _REASONING, out, _REASONING)
    if prompt is None and "prompt_cache_miss_tokens" in raw:
        prompt = (count_of(raw["prompt_cache_miss_tokens"]) or 0) + cached
    if _is_cache_outside(raw, into, prompt or 0, cached + written, completion or 0, total):
        prompt = (prompt or 0) + cached + written
    if not prompt and total and completion is not None and total > completion:
        prompt = total - completion
    completion = _whole_completion(prompt or 0, completion, reasoning, total)
    prompt = prompt or 0
    if prompt + (completion or 0) > MAX_TOKENS:
        return UNKNOWN
    return UsageReport(
        usage=Usage(
            prompt_tokens=prompt,
            cached_tokens=min(cached, prompt),
            cache_write_tokens=min(written, prompt - min(cached, prompt)),
            cache_write_1h_tokens=min(written_1h, written, prompt - min(cached, prompt)),
            completion_tokens=completion or 0,
            reasoning_tokens=min(reasoning, completion or 0),
            details=_details(raw, into, out),
        ),
        is_input_known=prompt > 0,
        is_output_known=completion is not None,
    )


def _is_cache_outside(raw: Fields, into: Fields, prompt: int, cache: int, completion: int, total: int | None) -> bool:
    """Return whether cached and written tokens stand beside the prompt instead of inside.

    Anthropic's names say so; so does a part that is larger than its whole, and a total that only adds up that way.
    """
    if not cache:
        return False
    if not _first_count(raw, _PROMPT_WITH_CACHE) and not into:
        names = (*_CACHE_READ_BESIDE, *_CACHE_WRITE)
        if not raw.keys().isdisjoint(names) or "cache_creation" in raw:
            return True
    return cache > prompt or total == prompt + cache + completion


def _whole_completion(prompt: int, completion: int | None, reasoning: int, total: int | None) -> int | None:
    """The output including reasoning that the provider counts beside it; `total` is the sum of what is billed."""
    if completion is None and not reasoning:
        return total - prompt if total is not None and prompt and total >= prompt else None
    whole = completion or 0
    if total is not None and prompt and total - prompt > whole:
        return total - prompt
    return whole + reasoning if reasoning > whole else whole


def _cache_writes(raw: Fields, into: Fields) -> tuple[int, int]:
    """Tokens that the cache took in, and those of them that it keeps for an hour; the parts count where no sum does."""
    by_lifetime = [_object(place.get(name)) for place in (raw, into) for name in _CACHE_LIFETIMES]
    five_minutes, hour = (
        max((count_of(each.get(name)) or 0) for each in by_lifetime) for name in (_WRITE_5M, _WRITE_1H)
    )
    written = max(_largest_count(raw, _CACHE_WRITE, into, _CACHE_WRITE_DETAIL), five_minutes + hour)
    return written, hour


def _details(raw: Fields, into: Fields, out: Fields) -> dict[str, int] | None:
    """Counts of what has a price of its own; None where there is nothing of the kind."""
    inputs, outputs = _by_modality(raw.get(_INPUT_MODALITIES)), _by_modality(raw.get(_OUTPUT_MODALITIES))
    found = {name: count_of(into.get(field)) or inputs.get(modality) for name, field, modality in _INPUT_PARTS}
    found |= {name: count_of(out.get(field)) or outputs.get(modality) for name, field, modality in _OUTPUT_PARTS}
    units = _object(raw.get(UNITS_OBJECT))
    for name in UNITS:
        counts = [count_of(each.get(f"{name}_requests")) for each in (units, raw, into)]
        found[name] = max((count for count in counts if count is not None), default=None)
    return {name: count for name, count in found.items() if count} or None


def _by_modality(listed: Any) -> dict[Any, int]:
    """Read Gemini's list of objects, each with a modality and its tokens."""
    entries = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
    return {str(each.get("modality")): count_of(each.get("tokenCount")) or 0 for each in entries}


def _sum_of(reports: Iterable[UsageReport]) -> UsageReport:
    reports = list(reports)
    totals = {name: sum(getattr(each.usage, name) for each in reports) for name in _COUNTS}
    details: Counter[str] = Counter()
    for each in reports:
        details.update(each.usage.details or {})
    return UsageReport(
        usage=Usage(**totals, details=dict(details) or None),
        is_input_known=all(each.is_input_known for each in reports),
        is_output_known=all(each.is_output_known for each in reports),
    )


def _largest(one: UsageReport, other: UsageReport) -> UsageReport:
    found = max(one, other, key=lambda report: report.usage.total_tokens)
    # Each may tell of units that the other leaves out.
    details = dict(Counter(one.usage.details or {}) | Counter(other.usage.details or {})) or None
    return found if details == found.usage.details else replace(found, usage=replace(found.usage, details=details))


def _object(value: Any) -> Fields:
    return value if isinstance(value, Mapping) else _NO_FIELDS


def _objects(raw: Fields, names: tuple[str, ...]) -> Fields:
    """The objects of these names as one; of a field in several of them, the one that tells more."""
    found = [each for name in names if (each := _object(raw.get(name)))]
    if len(found) < 2:
        return found[0] if found else _NO_FIELDS
    return merged(found[0], {name: value for name, value in found[1].items() if count_of(value) != 0})


def _without_places(raw: Fields) -> Fields:
    """Return what is billed where a usage object has only objects inside, such as Cohere's."""
    for name in _PLACES:
        if (inner := _object(raw.get(name))) and _first_count(raw, (*_PROMPT, *_COMPLETION)) is None:
            return inner
    return raw


def _first_count(raw: Fields, names: tuple[str, ...]) -> int | None:
    """The first name that tells a count; a zero only when no other name tells more."""
    counts = [found for name in names if (found := count_of(raw.get(name))) is not None]
    return next((each for each in counts if each), counts[0] if counts else None)


def _largest_count(raw: Fields, names: tuple[str, ...], details: Fields, detail_names: tuple[str, ...]) -> int:
    counts = [count_of(raw.get(name)) for name in names] + [count_of(details.get(name)) for name in detail_names]
    return max((each for each in counts if each is not None), default=0)
