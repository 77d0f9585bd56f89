"""A request's bytes -> Call, and back to bytes for the upstream. Pure.

The body is parsed once. What the gateway does not change goes on byte for byte, so that every parameter a provider
invents tomorrow works today.
"""

from functools import cache
from typing import Any

import msgspec
from msgspec import Raw, Struct

from billing.holds import CallSize
from routing.errors import InvalidJson, InvalidRequestBody
from routing.inference import Prompt
from routing.shapes import MAX_OUTPUT_TOKENS, Fields, Shape

# LiteLLM obeys these from anyone: they choose servers, keys, prices, callbacks or retries, which is not the caller's
# business. They are dropped.
# fmt: off
CONTROL_FIELDS = frozenset({
    "allowed_openai_params", "api_base", "api_key", "api_version", "base_url", "cache", "caching", "callbacks",
    "client", "content_policy_fallbacks", "context_window_fallbacks", "custom_llm_provider",
    "custom_prompt_dict", "default_fallbacks", "deployment_id", "disable_add_transform_inline_image_block",
    "drop_params", "additional_drop_params", "extra_body", "extra_headers", "extra_query", "fallbacks",
    "failure_callback", "force_timeout", "guardrails", "guardrail_config", "headers", "hf_model_name",
    "input_callback", "input_cost_per_second", "input_cost_per_token", "logger_fn", "max_retries", "mock_delay",
    "mock_response", "mock_testing_content_policy_fallbacks", "mock_testing_context_fallbacks",
    "mock_testing_fallbacks", "mock_timeout", "mock_tool_calls", "model_config", "model_id", "model_info",
    "model_list", "no-log", "no-proxy", "num_retries", "organization", "output_cost_per_second",
    "output_cost_per_token", "policies", "preset_cache_key", "prompt_id", "prompt_label", "prompt_variables",
    "prompt_version", "proxy_server_request", "region_name", "request_timeout", "retry_policy",
    "retry_strategy", "rpm", "secret_fields", "ssl_verify", "stream_timeout", "success_callback", "tags",
    "timeout", "tpm", "ttl", "use_chat_completions_api", "use_client", "use_in_pass_through",
    "use_litellm_proxy", "user_config", "verbose",
})
# fmt: on
CONTROL_PREFIXES = ("litellm_", "aws_", "azure_", "vertex_", "watsonx_", "s3_")
# The same inside `metadata`, which otherwise is the caller's own.
METADATA_CONTROL_PREFIXES = ("litellm", "user_api_key", "spend_logs", "guardrail", "model_", "hidden_", "proxy_")

# OpenRouter, behind the shipped LiteLLM, obeys these: with `models` it answers by any model, at that one's price, when
# the first refuses, as it does a prompt that is too long for it.
ROUTER_FIELDS = frozenset({"models", "preset", "provider", "providerOptions", "route"})
# How much may come out, in the words of other surfaces and of providers. LiteLLM hands most of them on, and Gemini
# obeys `max_output_tokens` rather than our bound: each is dropped where it is not the surface's own.
# fmt: off
OUTPUT_FIELDS = frozenset({
    "best_of", "candidate_count", "candidateCount", "generation_config", "generationConfig", "inferenceConfig",
    "max_completion_tokens", "max_gen_len", "max_length", "max_new_tokens", "max_output_tokens", "max_tokens",
    "max_tokens_to_sample", "maxOutputTokens", "maxTokenCount", "maxTokens", "n", "num_generations", "num_predict",
    "num_return_sequences",
})
# fmt: on
# Faster or nearer service, and searches, for which providers charge more than the price that is sold.
DEARER_FIELDS = frozenset({"inference_geo", "plugins", "service_tier", "serviceTier", "speed", "web_search_options"})

# Written by the gateway itself, from the parsed values.
_REWRITTEN = frozenset({"model", "stream_options", "metadata"})

# Anthropic's least thinking.
MIN_THINKING_TOKENS = 1_024

_fields = msgspec.json.Decoder(dict[str, Raw])
_objects = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.encode


class Call(Struct, frozen=True, kw_only=True):
    """A request as the gateway understands it. `fields` holds every field of the body as it was written."""

    fields: Fields
    shape: Shape
    limits: dict[str, int]  # the bounds of the output that were given, by field
    text_bytes: int
    images: int
    file_tokens: int
    may_cache_for_an_hour: bool

    @property
    def model(self) -> str | None:
        return self.shape.model

    @property
    def is_stream(self) -> bool:
        return bool(self.shape.stream)

    def max_tokens(self, *, default: int, cap: int) -> int:
        """What is sent upstream as the most to produce: asked for or the default, never above the cap."""
        if not self.shape.limit_fields:
            return 0
        return min(cap, *self.limits.values()) if self.limits else min(default, cap)

    def size(self, max_output_tokens: int) -> CallSize:
        return CallSize(
            text_bytes=self.text_bytes,
            messages=self.shape.parts,
            images=self.images,
            file_tokens=self.file_tokens,
            max_output_tokens=max_output_tokens,
            choices=self.shape.choices,
            may_cache_for_an_hour=self.may_cache_for_an_hour,
        )

    def prompt(self) -> Prompt:
        """What stage inference looks at."""
        return self.shape.prompt(self.fields)


@cache
def _decoder(shape: type[Shape]) -> msgspec.json.Decoder[Shape]:
    return msgspec.json.Decoder(shape)


def parse(body: bytes, shape: type[Shape]) -> Call:
    """Understand a request. Raises InvalidJson or InvalidRequestBody (400), naming the field where it can."""
    try:
        if not body.isascii():
            body.decode()  # what is not looked into would otherwise not be looked at
        fields = _fields.decode(body)
        known = _decoder(shape).decode(body)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from exc
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise InvalidJson from exc
    known.check()
    limits = known.limits()
    for name, value in limits.items():
        if not 1 <= value <= MAX_OUTPUT_TOKENS:
            raise InvalidRequestBody(f"`{name}` must be between 1 and {MAX_OUTPUT_TOKENS}.", param=name)
    attachments = known.attachments()
    return Call(
        fields=fields,
        shape=known,
        limits=limits,
        text_bytes=len(body) - sum([each.size_bytes for each in attachments]),
        images=sum([each.is_image for each in attachments]),
        file_tokens=sum([each.tokens for each in attachments]),
        may_cache_for_an_hour=b"cache_control" in body and b'1h"' in body,
    )


def upstream_tail(call: Call, *, max_tokens: int, temperature: float | None) -> bytes:
    """The upstream body of every attempt but for the model, which `upstream_body` puts in front."""
    fields, shape = call.fields, call.shape
    # Clamp each spelling that was used; when none was, the first is understood everywhere.
    own = dict.fromkeys(call.limits or shape.limit_fields[:1], b"%d" % max_tokens)
    thinks = _thinking(fields.get("thinking"), max_tokens)
    if thinks is not None:
        own["thinking"] = thinks
    if temperature is not None and shape.takes_temperature and not thinks and _is_absent(fields.get("temperature")):
        own["temperature"] = _encode(temperature)
    if call.is_stream and shape.asks_for_usage:
        own["stream_options"] = _with_usage(fields.get("stream_options"))
    if shape.is_kept or "store" in fields:
        own["store"] = b"false"
    if metadata := _own_metadata(fields.get("metadata")):
        own["metadata"] = _encode(metadata)
    dropped = _dropped(type(shape))
    parts = [
        b"%b:%b" % (_encode(name), raw)
        for name, raw in fields.items()
        if name not in own
        and name not in _REWRITTEN
        and name not in dropped
        and name not in shape.limit_fields
        and not name.startswith(CONTROL_PREFIXES)
    ]
    parts += [b'"%b":%b' % (name.encode(), value) for name, value in own.items() if value]
    return b",".join(parts) + b"}"


def upstream_body(model: str, tail: bytes) -> bytes:
    """A complete upstream body for one attempt."""
    return b'{"model":%b,%b' % (_encode(model), tail)


@cache
def _dropped(shape: type[Shape]) -> frozenset[str]:
    """The fields that do not go on from a surface."""
    return CONTROL_FIELDS | ROUTER_FIELDS | DEARER_FIELDS | OUTPUT_FIELDS.difference(shape.__struct_encode_fields__)


def _is_absent(raw: Raw | None) -> bool:
    return raw is None or bytes(raw) == b"null"


def _object(name: str, raw: Raw | None) -> dict[str, Any]:
    """A field that is looked into. Raises InvalidRequestBody, also for numbers and depths that only pass unread."""
    try:
        return _objects.decode(raw or b"{}")
    except (msgspec.MsgspecError, RecursionError):
        raise InvalidRequestBody(f"`{name}` must be an object of sensible values.", param=name) from None


def _thinking(raw: Raw | None, max_tokens: int) -> bytes | None:
    """`thinking` so that it fits below the clamped max_tokens; empty when it cannot, None when it is not asked for."""
    if _is_absent(raw):
        return None
    thinking = _object("thinking", raw)
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or budget < max_tokens:
        return None if thinking.get("type") == "disabled" else bytes(raw or b"")
    if max_tokens <= MIN_THINKING_TOKENS:
        return b""
    return _encode({**thinking, "budget_tokens": max(MIN_THINKING_TOKENS, max_tokens // 2)})


def _with_usage(raw: Raw | None) -> bytes:
    """The caller's stream options, and the usage that the gateway needs in any case."""
    options = {} if _is_absent(raw) else _object("stream_options", raw)
    return _encode({**options, "include_usage": True})


def _own_metadata(raw: Raw | None) -> dict[str, str]:
    """The caller's metadata in OpenAI's form (texts), without what LiteLLM would take for instructions."""
    if _is_absent(raw):
        return {}
    metadata = _object("metadata", raw)
    return {
        name: value
        for name, value in metadata.items()
        if isinstance(value, str)
        and name not in CONTROL_FIELDS
        and not name.startswith((*METADATA_CONTROL_PREFIXES, *CONTROL_PREFIXES))
    }


def _invalid(reason: str) -> InvalidRequestBody:
    """msgspec says "Expected `int`, got `str` - at `$.max_tokens`": keep the place as `param`."""
    what, _, place = reason.partition(" - at `$")
    param = place.strip("`.").replace("[...]", "") or None
    return InvalidRequestBody(f"{what}{f' at {param}' if param else ''}.", param=param)
