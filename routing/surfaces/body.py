"""Request bodies: parse the caller's bytes, write the upstream's. Pure.

The body is parsed once. Fields that the gateway does not change pass byte for byte, so every parameter that a provider
invents tomorrow works today.
"""

import json
import re
from codecs import BOM_UTF8, getincrementaldecoder
from collections.abc import Callable, Collection
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from billing.limiter.holds import CallSize
from routing.errors import InvalidJson, InvalidRequestBody
from routing.inference.infer import Prompt
from routing.surfaces import tools
from routing.surfaces.attachments import MIN_LONG_BYTES, Attachment, long_strings, total
from routing.surfaces.requests import MAX_OUTPUT_TOKENS, Fields, RequestSchema
from routing.surfaces.tools import SERVICE_FIELDS, HostedTool

# LiteLLM obeys these from any caller: they choose servers, keys, prices, callbacks or retries. They are dropped.
# fmt: off
CONTROL_FIELDS = frozenset({
    "additional_drop_params", "allow_client_keepalive_override", "allowed_model_region", "allowed_openai_params",
    "api_base", "api_key", "api_version", "assistant_continue_message", "base_model", "base_url", "bos_token",
    "budget_duration", "cache", "caching", "caching_groups", "callbacks", "client", "client_id", "client_secret",
    "client_side_timeout", "complete_response", "configurable_clientside_auth_params", "content_policy_fallbacks",
    "context_window_fallback_dict", "context_window_fallbacks", "cooldown_time", "custom_llm_provider",
    "custom_prompt_dict", "data_residency", "dd_agent_host", "dd_agent_port", "dd_api_key", "dd_site",
    "default_fallbacks", "deployment_id", "disable_add_transform_inline_image_block", "drop_params",
    "enable_prompt_caching", "enable_tag_filtering", "ensure_alternating_roles", "eos_token", "extra_body",
    "extra_headers", "extra_query", "failure_callback", "fallback_depth", "fallbacks", "fastest_response",
    "final_prompt_value", "force_timeout", "gcs_bucket_name", "gcs_path_service_account", "guardrail_config",
    "guardrails", "headers", "hf_model_name", "humanloop_api_key", "input_callback", "input_cost_per_second",
    "input_cost_per_token", "itpm", "keepalive_seconds", "langfuse_environment", "langfuse_host",
    "langfuse_public_key", "langfuse_secret", "langfuse_secret_key", "langsmith_api_key", "langsmith_base_url",
    "langsmith_project", "langsmith_tenant_id", "logger_fn", "max_agentic_loops", "max_budget", "max_fallbacks",
    "max_parallel_requests", "max_retries", "merge_reasoning_content_in_choices", "mock_delay", "mock_response",
    "mock_testing_content_policy_fallbacks", "mock_testing_context_fallbacks", "mock_testing_fallbacks",
    "mock_timeout", "mock_tool_calls", "model_alias_map", "model_config", "model_file_id_mapping", "model_id",
    "model_info", "model_list", "no-log", "no-proxy", "num_retries", "order", "organization", "otpm",
    "output_cost_per_second", "output_cost_per_token", "policies", "posthog_api_key", "posthog_api_url",
    "preset_cache_key", "prompt_environment", "prompt_id", "prompt_label", "prompt_variables", "prompt_version",
    "provider_affinity_header", "provider_specific_header", "proxy_server_request", "region_name",
    "request_timeout", "retry_policy", "retry_strategy", "roles", "routing_strategy", "rpm", "search_tool_name",
    "secret_fields", "shared_session", "silent_model", "ssl_verify", "stream_chunk_size", "stream_response",
    "stream_timeout", "stream_timeout_by_service_tier", "success_callback", "supports_system_message", "tag_regex",
    "tags", "tenant_id", "text_completion", "tiered_pricing", "timeout", "timeout_by_service_tier", "tpm", "ttl",
    "turn_off_message_logging", "use_chat_completions_api", "use_client", "use_in_pass_through",
    "use_litellm_proxy", "use_xai_oauth", "user_config", "user_continue_message", "verbose", "wandb_api_key",
    "weave_project_id", "weight",
})
# fmt: on
CONTROL_PREFIXES = (
    "litellm_",
    "aws_",
    "azure_",
    "vertex_",
    "watsonx_",
    "s3_",
    "input_cost_",
    "output_cost_",
    "cache_creation_",
    "cache_read_",
)
# The same inside `metadata`, which otherwise is the caller's own.
METADATA_CONTROL_PREFIXES = ("litellm", "user_api_key", "spend_logs", "guardrail", "model_", "hidden_", "proxy_")

# OpenRouter, behind the shipped LiteLLM, obeys these: with `models` it uses any of them, at that one's price, when
# the first refuses, as it does a prompt that is too long for it.
ROUTER_FIELDS = frozenset({"models", "preset", "provider", "providerOptions", "route"})
# Bounds of the output under other names, of other surfaces and providers. LiteLLM passes most of them on, and Gemini
# obeys `max_output_tokens` rather than our bound: each is dropped where it is not the surface's own.
# fmt: off
OUTPUT_FIELDS = frozenset({
    "best_of", "candidate_count", "candidateCount", "generation_config", "generationConfig", "inferenceConfig",
    "max_completion_tokens", "max_gen_len", "max_length", "max_new_tokens", "max_output_tokens", "max_tokens",
    "max_tokens_to_sample", "maxOutputTokens", "maxTokenCount", "maxTokens", "n", "num_generations", "num_predict",
    "num_return_sequences",
})
# fmt: on
# Fields of the caller that a model refuses when it does not take the ability.
_FIELDS_OF_ABILITY = {
    "temperature": (
        "temperature",
        "top_p",
        "top_k",
        "top_a",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
    ),
    "reasoning": ("reasoning_effort", "reasoning", "thinking"),
}  # fmt: skip

# Written by the gateway itself, from the parsed values.
_REWRITTEN = frozenset({"model", "stream_options", "metadata"})

# Names of fields that are remembered of a surface.
MAX_NAMES = 1_000
# Most fields of a request, and most bytes of those that are written anew: each is handled one by one.
MAX_FIELDS = 1_000
MAX_REWRITTEN_BYTES = 64 * 1024
# Larger bodies that are no JSON are not searched for the place.
MAX_SEARCHED_BYTES = 64 * 1024
# As text, a character may take four bytes, and all of them when one does.
DECODED_BYTES = 256 * 1024

# Anthropic's minimum.
MIN_THINKING_TOKENS = 1_024

_SURROGATE = re.compile("[\ud800-\udfff]")
_fields = msgspec.json.Decoder(dict[str, Raw])
_objects = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.encode


class ParsedRequest(Struct, frozen=True, kw_only=True):
    """A parsed request. `fields` holds every field of the body as it was written."""

    fields: Fields
    schema: RequestSchema
    is_stream: bool
    limits: dict[str, int]  # the bounds of the output that were given, by field
    text_bytes: int
    images: int
    file_tokens: int
    audio_tokens: int
    may_cache_for_an_hour: bool
    attachments: list[Attachment] = []
    hosted: tuple[HostedTool, ...] = ()  # tools that the provider carries out; after `with_sold_tools`, the sold ones
    dropped: tuple[str, ...] = ()  # what the caller is told not to have got

    @property
    def model(self) -> str | None:
        return self.schema.model

    @property
    def needs(self) -> tuple[str, ...]:
        """Abilities without which a model cannot serve the request."""
        tools = self.fields.get("tools") or self.fields.get("functions")
        has_tools = not _is_absent(tools) and bytes(tools or b"") != b"[]"
        return (("images",) if self.images else ()) + (("tools",) if has_tools else ())

    def max_tokens(self, *, default: int, cap: int) -> int:
        """Return the bound of the output sent upstream: as requested or the default, never above the cap."""
        if not self.schema.limit_fields:
            return 0
        return min(cap, *self.limits.values()) if self.limits else min(default, cap)

    def size(self, max_output_tokens: int) -> CallSize:
        size = CallSize(
            text_bytes=self.text_bytes,
            messages=self.schema.parts,
            images=self.images,
            file_tokens=self.file_tokens,
            audio_tokens=self.audio_tokens,
            max_output_tokens=max_output_tokens,
            choices=self.schema.choices,
            units=tools.units_held(self.hosted) or None,
            may_cache_for_an_hour=self.may_cache_for_an_hour,
        )
        return self.schema.sized(size)

    def prompt(self) -> Prompt:
        """Return the texts that stage inference reads."""
        return self.schema.prompt(self.fields)

    def with_sold_tools(self, *, sold: Collection[str], added: Collection[str], model: str) -> "ParsedRequest":
        """Return the request without hosted tools that no price line sells. Raises ToolNotSold for a chosen one.

        `sold` has the names of the price lines of `model`, `added` the tools that the caller's agent adds by itself.
        """
        kept, dropped = tools.choose(self.hosted, sold=sold, added=added, fields=self.fields, model=model)
        return msgspec.structs.replace(
            self,
            fields=tools.without(self.fields, dropped) if dropped else self.fields,
            hosted=kept,
            dropped=tuple(dict.fromkeys(each.name for each in dropped)),
        )


@cache
def _decoder(schema: type[RequestSchema]) -> msgspec.json.Decoder[RequestSchema]:
    return msgspec.json.Decoder(schema)


def parse(body: bytes, schema: type[RequestSchema]) -> ParsedRequest:
    """Parse a request. Raises InvalidJson or InvalidRequestBody (400), naming the field where it can."""
    if body.startswith(BOM_UTF8):
        body = body[len(BOM_UTF8) :]
    try:
        if not body.isascii():
            _check_utf8(body)  # also fields that are never decoded must be UTF-8
        fields = _fields.decode(body)
        known = _decoder(schema).decode(body)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from exc
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise InvalidJson(_what_is_wrong(body)) from exc
    if len(fields) > MAX_FIELDS:
        raise InvalidRequestBody(f"A request may have at most {MAX_FIELDS} fields.")
    known.check()
    limits = known.limits()
    for name, value in limits.items():
        if not 1 <= value <= MAX_OUTPUT_TOKENS:
            raise InvalidRequestBody(f"`{name}` must be between 1 and {MAX_OUTPUT_TOKENS}.", param=name)
    try:
        attachments = known.attachments()
    except RecursionError:
        raise InvalidRequestBody("The body is nested too deeply.") from None
    if len(body) >= MIN_LONG_BYTES:
        attachments += long_strings(fields.get("messages") or fields.get("input"), attachments)
    attached = total(attachments)
    return ParsedRequest(
        fields=fields,
        schema=known,
        is_stream=known.stream is True,
        limits=limits,
        text_bytes=len(body) - attached.size_bytes,
        images=attached.images,
        file_tokens=attached.file_tokens,
        audio_tokens=attached.audio_tokens,
        may_cache_for_an_hour=b"cache_control" in body and b'1h"' in body,
        attachments=attachments,
        hosted=tools.hosted_in(fields, known) if known.uses_tools else (),
    )


def _check_utf8(body: bytes) -> None:
    """Raise UnicodeDecodeError unless a body is UTF-8; of a large one only a piece at a time is held as text."""
    if len(body) <= DECODED_BYTES:
        body.decode()
        return
    decode = getincrementaldecoder("utf-8")().decode
    for start in range(0, len(body), DECODED_BYTES):
        decode(body[start : start + DECODED_BYTES])
    decode(b"", final=True)


def _what_is_wrong(body: bytes) -> str | None:
    """Say why a body is refused, where it is not simply no JSON: half a character, or another encoding."""
    try:
        text = body.decode("utf-8")
        place = _half_surrogate_in(json.loads(text)) if len(body) <= MAX_SEARCHED_BYTES else None
    except UnicodeDecodeError as exc:
        return f"The body is not UTF-8: byte {exc.start} is part of no character."
    except (ValueError, RecursionError):
        return None
    if place is None:
        return None
    return f"Half of a surrogate pair at {place}: send the whole character, or leave it out."


def _half_surrogate_in(value: Any, path: str = "the body") -> str | None:
    """Return the place of the first text with half a surrogate pair."""
    if isinstance(value, str):
        return path if _SURROGATE.search(value) else None
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        at = f"{path}[{name}]" if isinstance(value, list) else f"{path}.{name}" if path != "the body" else str(name)
        if (found := _half_surrogate_in(each, at)) or (isinstance(name, str) and _SURROGATE.search(name)):
            return found or path
    return None


class Fit(NamedTuple):
    """Parameters of a request that depend on the model that serves it."""

    max_tokens: int
    temperature: float | None  # if the caller gives none
    left_out: frozenset[str] = frozenset()  # fields of the caller that the model refuses


@cache
def refused_fields(takes: frozenset[str]) -> frozenset[str]:
    """Return the fields that a model with these abilities refuses."""
    lacking = _FIELDS_OF_ABILITY.keys() - takes
    return frozenset(field for ability in lacking for field in _FIELDS_OF_ABILITY[ability])


class Tails:
    """Upstream bodies of a call but for the model, each written when it is needed, once for models that fit alike."""

    __slots__ = ("_fit_of", "_may_drop", "_request", "_written")

    def __init__(self, request: ParsedRequest, fit_of: Callable[[str], Fit], *, may_drop: bool = False) -> None:
        self._request = request
        self._fit_of = fit_of
        self._may_drop = may_drop
        self._written: dict[str | Fit, bytes] = {}

    def of(self, model: str) -> bytes:
        """Return what `upstream_body` puts the model in front of. Raises InvalidRequestBody the first time or never."""
        tail = self._written.get(model)
        if tail is None:
            fit = self._fit_of(model)
            tail = self._written.get(fit)
            if tail is None:
                tail = self._written[fit] = upstream_tail(
                    self._request,
                    max_tokens=fit.max_tokens,
                    temperature=fit.temperature,
                    left_out=fit.left_out,
                    may_drop=self._may_drop,
                )
            self._written[model] = tail
        return tail


def upstream_tail(
    request: ParsedRequest,
    *,
    max_tokens: int,
    temperature: float | None,
    left_out: frozenset[str] = frozenset(),
    may_drop: bool = False,
) -> bytes:
    """Write the upstream body of an attempt but for the model, which `upstream_body` puts in front.

    `may_drop`: LiteLLM is to drop parameters that the provider lacks rather than refuse them.
    """
    fields, schema = request.fields, request.schema
    # Clamp each field that was used; when none was, the first is understood everywhere.
    own = dict.fromkeys(request.limits or schema.limit_fields[:1], b"%d" % max_tokens)
    if "thinking" in fields:
        thinking = _thinking(fields["thinking"], max_tokens)
        if thinking is not None and "thinking" not in left_out:
            own["thinking"] = thinking
    if temperature is not None and schema.takes_temperature:
        is_free = not own.get("thinking") and _is_absent(fields.get("temperature"))
        if is_free:
            own["temperature"] = _encode(temperature)
    if request.is_stream and schema.asks_for_usage:
        own["stream_options"] = _with_usage(fields.get("stream_options"))
    if schema.is_stored_by_default or "store" in fields:
        own["store"] = b"false"
    if "metadata" in fields and (metadata := _own_metadata(fields["metadata"])):
        own["metadata"] = _encode(metadata)
    if may_drop:
        own["drop_params"] = b"true"
    names = _names_of(type(schema))
    parts = [
        b"%b:%b" % (written, raw)
        for name, raw in fields.items()
        if name not in own and name not in left_out and (written := names[name])
    ]
    parts += [b'"%b":%b' % (name.encode(), value) for name, value in own.items() if value]
    return b",".join(parts) + b"}"


def upstream_body(model: str, tail: bytes) -> bytes:
    """Write the complete upstream body of one attempt."""
    return b'{"model":%b,%b' % (_encode(model), tail)


class _Names(dict[str, bytes]):
    """Names of fields as JSON, remembered; empty for those that a surface does not pass upstream as they are."""

    def __init__(self, schema: type[RequestSchema]) -> None:
        super().__init__()
        # They are dropped, or written anew.
        other_bounds = OUTPUT_FIELDS.difference(schema.__struct_encode_fields__)
        dropped = CONTROL_FIELDS | ROUTER_FIELDS | SERVICE_FIELDS | _REWRITTEN | other_bounds
        self._not_passed = dropped.union(schema.limit_fields)

    def __missing__(self, name: str) -> bytes:
        if len(self) >= MAX_NAMES:  # callers choose them
            self.clear()
        is_dropped = name in self._not_passed or name.startswith(CONTROL_PREFIXES)
        self[name] = written = b"" if is_dropped else _encode(name)
        return written


_names_of = cache(_Names)


def _is_absent(raw: Raw | None) -> bool:
    return raw is None or bytes(raw) == b"null"


def _object(name: str, raw: Raw | None) -> dict[str, Any]:
    """Decode a field. Raises InvalidRequestBody, also for numbers and depths that would pass undecoded."""
    if raw is not None and len(memoryview(raw)) > MAX_REWRITTEN_BYTES:
        raise InvalidRequestBody(f"`{name}` may have at most {MAX_REWRITTEN_BYTES} bytes.", param=name)
    try:
        return _objects.decode(raw or b"{}")
    except (msgspec.MsgspecError, RecursionError):
        raise InvalidRequestBody(f"`{name}` must be an object of sensible values.", param=name) from None


def _thinking(raw: Raw | None, max_tokens: int) -> bytes | None:
    """Fit `thinking` below the clamped max_tokens; empty when it cannot fit, None when it is not requested."""
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
    """Return the caller's stream options with usage, which the gateway always needs."""
    options = {} if _is_absent(raw) else _object("stream_options", raw)
    return _encode({**options, "include_usage": True})


def _own_metadata(raw: Raw | None) -> dict[str, str]:
    """Return the caller's metadata in OpenAI's form (strings), without the fields that LiteLLM obeys."""
    if _is_absent(raw):
        return {}
    metadata = _object("metadata", raw)
    return {
        name: value
        for name, value in metadata.items()
        if isinstance(value, str)
        and name != "tag"  # ours, and providers refuse what they do not know
        and name not in CONTROL_FIELDS
        and not name.startswith((*METADATA_CONTROL_PREFIXES, *CONTROL_PREFIXES))
    }


def _invalid(reason: str) -> InvalidRequestBody:
    """Convert msgspec's "Expected `int`, got `str` - at `$.max_tokens`": the place becomes `param`."""
    what, _, place = reason.partition(" - at `$")
    param = place.strip("`.").replace("[...]", "") or None
    return InvalidRequestBody(f"{what}{f' at {param}' if param else ''}.", param=param)
