"""Prices of LiteLLM's `/model/info` or price map against the catalogue's, and a text of models.yaml with them. Pure.

Only prices that the catalogue has lines for are compared; what LiteLLM charges for batches, priority service or seconds
of video is not sold. Units are compared where the catalogue sells them, and never added: a price would begin a sale.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import yaml

from codexflow.catalogue.entries import PARTS, ModelEntry, PriceDetails, Rates, Tier
from codexflow.lib.money import InvalidAmount, format_usd, parse_usd
from codexflow.lib.numbers import finite_number

_TOKENS = 1_000_000
_MOST_USD = 1_000_000
_TIER = re.compile(r"input_cost_per_token_above_(\d{1,5})k_tokens")
# Providers that begin a tier at its threshold instead of above it.
_INCLUSIVE = ("xai/", "xai")
_CLASSES = {
    "input_nanos": "input_cost_per_token",
    "cached_nanos": "cache_read_input_token_cost",
    "cache_write_nanos": "cache_creation_input_token_cost",
    "cache_write_1h_nanos": "cache_creation_input_token_cost_above_1hr",
    "output_nanos": "output_cost_per_token",
}
_PART_COSTS = {
    "audio_input": "input_cost_per_audio_token",
    "image_input": "input_cost_per_image_token",
    "audio_output": "output_cost_per_audio_token",
    "image_output": "output_cost_per_image_token",
}
_UNIT_COSTS = {"search_unit": "input_cost_per_query"}
# Names in the file of a class of tokens.
_KEYS = {
    "input_nanos": "input",
    "cached_nanos": "cached_input",
    "cache_write_nanos": "cache_write",
    "cache_write_1h_nanos": "cache_write_1h",
    "output_nanos": "output",
}
_PROVIDERS = ("", "anthropic/", "openai/", "gemini/", "deepseek/", "xai/", "mistral/", "openrouter/")


class BadPrices(Exception):
    """What LiteLLM tells of a model is no price; the text says which field."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One line of a price that differs, in nano-USD; None where one side has no such line."""

    model: str
    line: str
    ours_nanos: int | None
    theirs_nanos: int | None


@dataclass(slots=True)
class Comparison:
    """Result: differences, new prices of the models that differ, and what could not be compared."""

    differences: list[Difference] = field(default_factory=list)
    prices: dict[str, Rates] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)  # `model: what is wrong`
    unknown: list[str] = field(default_factory=list)  # models that LiteLLM does not tell of


def costs_by_name(content: Any) -> dict[str, Mapping[str, Any]]:
    """Return LiteLLM's costs by model name, from the response of `/model/info` or from a price map.

    Of several deployments of one name the dearest input counts. Raises BadPrices when it is neither of both.
    """
    if isinstance(content, Mapping) and isinstance(content.get("data"), list):
        found: dict[str, Mapping[str, Any]] = {}
        for each in content["data"]:
            if isinstance(each, Mapping) and isinstance(each.get("model_info"), Mapping):
                name = str(each.get("model_name"))
                found[name] = max(found.get(name, {}), each["model_info"], key=_input_cost)
        return found
    if isinstance(content, Mapping) and content and all(isinstance(each, Mapping) for each in content.values()):
        return {str(name): costs for name, costs in content.items()}
    raise BadPrices("This is neither a response of /model/info nor a price map.")


def _input_cost(costs: Mapping[str, Any]) -> Decimal:
    return _decimal(costs.get("input_cost_per_token")) or Decimal(-1)


def _decimal(value: Any) -> Decimal | None:
    """Return a number as it is written: a float of 2.5e-07 is exactly that."""
    number = finite_number(value)
    return None if number is None else Decimal(str(number))


def compare(
    entries: Mapping[str, ModelEntry], models: Sequence[str], costs: Mapping[str, Mapping[str, Any]]
) -> Comparison:
    """Compare the prices of `models` with LiteLLM's."""
    found = Comparison()
    for model in models:
        told = next((costs[name] for name in _names_of(model) if name in costs), None)
        if told is None:
            found.unknown.append(model)
            continue
        ours = entries[model].rates
        try:
            theirs = _with_our_units(rates_of(told), ours, told)
        except BadPrices as exc:
            found.refused.append(f"{model}: {exc}")
            continue
        differences = list(_differences(model, ours, theirs))
        if differences:
            found.differences += differences
            found.prices[model] = theirs
    return found


def _names_of(model: str) -> Iterator[str]:
    """Names by which LiteLLM may know a model: its own, with dashes for dots, and below a provider."""
    for name in (model, model.replace(".", "-")):
        for provider in _PROVIDERS:
            yield provider + name


def rates_of(costs: Mapping[str, Any]) -> Rates:
    """Return LiteLLM's costs as a price. Raises BadPrices for one that is missing, negative or no number."""
    part_nanos = {name: nanos for name, key in _PART_COSTS.items() if (nanos := _nanos(costs, key)) is not None}
    is_inclusive = str(costs.get("litellm_provider", "")).startswith(_INCLUSIVE)
    tiers = []
    for key in costs:
        if (match := _TIER.fullmatch(key)) and costs[key] is not None:
            suffix = key.removeprefix("input_cost_per_token")
            tiers.append(Tier(from_tokens=int(match[1]) * 1_000 + (not is_inclusive), **_classes(costs, suffix)))
    details = PriceDetails(tiers=tuple(sorted(tiers, key=lambda tier: tier.from_tokens)), part_nanos=part_nanos)
    return Rates(**_classes(costs, ""), details=details if details != PriceDetails() else None)


def _classes(costs: Mapping[str, Any], suffix: str) -> dict[str, int]:
    input_nanos = _required(costs, f"input_cost_per_token{suffix}")
    # A free write is a provider without a charge for writing: the input was paid for.
    write_nanos = _nanos(costs, f"{_CLASSES['cache_write_nanos']}{suffix}") or input_nanos
    cached_nanos = _nanos(costs, f"{_CLASSES['cached_nanos']}{suffix}")
    return {
        "input_nanos": input_nanos,
        "cached_nanos": input_nanos if cached_nanos is None else cached_nanos,
        "cache_write_nanos": write_nanos,
        "cache_write_1h_nanos": _nanos(costs, f"{_CLASSES['cache_write_1h_nanos']}{suffix}") or write_nanos,
        "output_nanos": _required(costs, f"output_cost_per_token{suffix}"),
    }


def _required(costs: Mapping[str, Any], key: str) -> int:
    nanos = _nanos(costs, key)
    if nanos is None:
        raise BadPrices(f"{key} is missing")
    return nanos


def _nanos(costs: Mapping[str, Any], key: str) -> int | None:
    """Nano-USD per million tokens; None where there is no such price."""
    return _unit_nanos(costs, key, count=_TOKENS)


def _unit_nanos(costs: Mapping[str, Any], key: str, *, count: int = 1) -> int | None:
    """Nano-USD for so many units; None where there is no such price. Raises BadPrices."""
    value = costs.get(key)
    if value is None:
        return None
    number = _decimal(value)
    if number is None or not 0 <= number * count <= _MOST_USD:
        raise BadPrices(f"{key} is {str(value)[:40]!r}, which is no price")
    try:
        return parse_usd((number * count).normalize())
    except InvalidAmount:
        raise BadPrices(f"{key} has more digits than a price can have") from None


def _with_our_units(theirs: Rates, ours: Rates, costs: Mapping[str, Any]) -> Rates:
    """Return LiteLLM's price with our units, at LiteLLM's price where it has one. Raises BadPrices."""
    if ours.details is None or not ours.details.unit_nanos:
        return theirs
    unit_nanos = {
        name: nanos if (told := _unit_nanos(costs, _UNIT_COSTS.get(name, ""))) is None else told
        for name, nanos in ours.details.unit_nanos.items()
    }
    return replace(theirs, details=replace(theirs.details or PriceDetails(), unit_nanos=unit_nanos))


def _differences(model: str, ours: Rates, theirs: Rates) -> Iterator[Difference]:
    left, right = dict(_lines(ours)), dict(_lines(theirs))
    for line in dict.fromkeys((*left, *right)):
        if left.get(line) != right.get(line):
            yield Difference(model, line, left.get(line), right.get(line))


def _lines(rates: Rates) -> Iterator[tuple[str, int]]:
    for name, key in _KEYS.items():
        yield key, getattr(rates, name)
    details = rates.details or PriceDetails()
    for tier in details.tiers:
        for name, key in _KEYS.items():
            yield f"{key} from {tier.from_tokens:,} tokens", getattr(tier, name)
    yield from details.part_nanos.items()
    yield from details.unit_nanos.items()


def with_prices(text: str, prices: Mapping[str, Rates]) -> str:
    """Return a valid text of models.yaml with other prices. Everything else stays as it was written, comments included.

    A price goes where the text has one for the model; for models that are built in, into `prices`.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    spans, missing = [], {}
    for model, rates in prices.items():
        node = _find(root, "prices", model) or _find(root, "models", model, "price")
        if node is None:
            missing[model] = rates
        else:
            spans.append((node.start_mark.index, _end_of(node), _flow(rates)))
    for start, end, flow in sorted(spans, reverse=True):
        text = text[:start] + flow + text[end:]
    if not missing:
        return text
    lines = "".join(f"  {model}: {_flow(rates)}\n" for model, rates in missing.items())
    own = _find(yaml.compose(text, Loader=yaml.SafeLoader), "prices")
    if own is not None and own.value and not own.flow_style:
        start = own.start_mark.index - own.start_mark.column
        return text[:start] + lines + text[start:]
    return f"{text.rstrip()}\n\nprices:\n{lines}"


def _find(node: Any, *path: str) -> Any:
    """Return the node at a path of mappings, or None."""
    for name in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for key, value in node.value if key.value == name), None)
    return node


def _end_of(node: Any) -> int:
    """Return where a node ends. That of a block is its last value's: its own mark lies behind the comments after it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    end: int = node.end_mark.index
    return end


def _flow(rates: Rates) -> str:
    """Write a price in one line."""
    details = rates.details or PriceDetails()
    parts = _written_classes(rates)
    parts += [f"{name}: {_usd(details.part_nanos[name])}" for name in PARTS if name in details.part_nanos]
    if details.tiers:
        tiers = (f"{{from: {tier.from_tokens}, {', '.join(_written_classes(tier))}}}" for tier in details.tiers)
        parts.append(f"tiers: [{', '.join(tiers)}]")
    if details.unit_nanos:
        units = (f"{name}: {_usd(nanos)}" for name, nanos in details.unit_nanos.items())
        parts.append(f"units: {{{', '.join(units)}}}")
    return f"{{{', '.join(parts)}}}"


def _written_classes(rates: Rates | Tier) -> list[str]:
    """Classes of tokens whose price is not that of their default."""
    defaults = {
        "cached_nanos": rates.input_nanos,
        "cache_write_nanos": rates.input_nanos,
        "cache_write_1h_nanos": rates.cache_write_nanos,
    }
    return [
        f"{key}: {_usd(getattr(rates, name))}"
        for name, key in _KEYS.items()
        if getattr(rates, name) != defaults.get(name)
    ]


def _usd(nanos: int) -> str:
    whole, _, decimals = format_usd(nanos, decimals=9).partition(".")
    return f"{whole}.{decimals.rstrip('0')}" if decimals.rstrip("0") else whole
