"""A chat request's bytes -> Call, and back to bytes for the upstream. Pure.

The body is parsed once. What the gateway does not change goes on byte for byte, so that every parameter a provider
invents tomorrow works today.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from billing.holds import CallSize
from routing.errors import InvalidJson, InvalidRequestBody
from routing.inference import Prompt

MAX_OUTPUT_TOKENS = 10_000_000
MAX_CHOICES = 128

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

# Written by the gateway itself, from the parsed values.
_REWRITTEN = frozenset({"model", "max_tokens", "max_completion_tokens", "stream_options", "metadata"})


class _ContentPart(Struct):
    type: str = ""
    text: str = ""
    image_url: Raw | UnsetType = UNSET
    input_audio: Raw | UnsetType = UNSET
    file: Raw | UnsetType = UNSET

    @property
    def attachments(self) -> tuple[Raw, ...]:
        return tuple(each for each in (self.image_url, self.input_audio, self.file) if each is not UNSET)


class _Message(Struct):
    role: str
    content: str | list[_ContentPart] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Known(Struct):
    """The fields that the gateway reads; everything else only passes through."""

    messages: list[_Message]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_fields = msgspec.json.Decoder(dict[str, Raw])
_known = msgspec.json.Decoder(_Known)
_objects = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.encode


class Call(Struct, frozen=True, kw_only=True):
    """A chat request as the gateway understands it. `fields` holds every field of the body as it was written."""

    fields: Mapping[str, Raw]
    known: _Known
    text_bytes: int
    images: int

    @property
    def model(self) -> str | None:
        return self.known.model

    @property
    def is_stream(self) -> bool:
        return bool(self.known.stream)

    @property
    def wants_usage(self) -> bool:
        """Whether the caller asked for the usage chunk at the end of its stream."""
        options = self.known.stream_options
        return options is not None and bool(options.include_usage)

    def max_tokens(self, *, default: int, cap: int) -> int:
        """What is sent upstream as the most to produce: asked for or the default, never above the cap."""
        asked = [value for value in (self.known.max_completion_tokens, self.known.max_tokens) if value is not None]
        return min([*asked, cap] if asked else [default, cap])

    def size(self, max_output_tokens: int) -> CallSize:
        return CallSize(
            text_bytes=self.text_bytes,
            messages=len(self.known.messages),
            images=self.images,
            max_output_tokens=max_output_tokens,
            choices=self.known.n or 1,
        )

    def prompt(self) -> Prompt:
        """What stage inference looks at."""
        last_user = next((each for each in reversed(self.known.messages) if each.role == "user"), None)
        system = "\n".join(each.text() for each in self.known.messages if each.role in ("system", "developer"))
        return Prompt(last_user_text=last_user.text() if last_user else "", system_text=system)


def parse(body: bytes) -> Call:
    """Understand a chat request. Raises InvalidJson or InvalidRequestBody (400), naming the field where it can."""
    try:
        fields = _fields.decode(body)
        known = _known.decode(body)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from exc
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise InvalidJson from exc
    if not known.messages:
        raise InvalidRequestBody("`messages` must have at least one message.", param="messages")
    if known.n is not None and not 1 <= known.n <= MAX_CHOICES:
        raise InvalidRequestBody(f"`n` must be between 1 and {MAX_CHOICES}.", param="n")
    for name in ("max_tokens", "max_completion_tokens"):
        value = getattr(known, name)
        if value is not None and not 1 <= value <= MAX_OUTPUT_TOKENS:
            raise InvalidRequestBody(f"`{name}` must be between 1 and {MAX_OUTPUT_TOKENS}.", param=name)
    attachments = [
        attachment
        for message in known.messages
        if isinstance(message.content, list)
        for part in message.content
        for attachment in part.attachments
    ]
    text_bytes = len(body) - sum(len(bytes(each)) for each in attachments)
    return Call(fields=fields, known=known, text_bytes=text_bytes, images=len(attachments))


def upstream_tail(call: Call, *, max_tokens: int, temperature: float | None) -> bytes:
    """The upstream body of every attempt but for the model, which `upstream_body` puts in front."""
    fields = call.fields
    parts = [
        b"%b:%b" % (_encode(name), bytes(raw))
        for name, raw in fields.items()
        if name not in _REWRITTEN and name not in CONTROL_FIELDS and not name.startswith(CONTROL_PREFIXES)
    ]
    # Clamp each spelling that was used; when none was, the older one is understood everywhere.
    names = [name for name in ("max_tokens", "max_completion_tokens") if getattr(call.known, name) is not None] or [
        "max_tokens"
    ]
    parts += [b'"%b":%d' % (name.encode(), max_tokens) for name in names]
    if temperature is not None and _is_absent(fields.get("temperature")):
        parts = [part for part in parts if not part.startswith(b'"temperature":')]
        parts.append(b'"temperature":%b' % _encode(temperature))
    if call.is_stream:
        parts.append(b'"stream_options":%b' % _with_usage(fields.get("stream_options")))
    if metadata := _own_metadata(fields.get("metadata")):
        parts.append(b'"metadata":%b' % _encode(metadata))
    return b",".join(parts) + b"}"


def upstream_body(model: str, tail: bytes) -> bytes:
    """A complete upstream body for one attempt."""
    return b'{"model":%b,%b' % (_encode(model), tail)


def _is_absent(raw: Raw | None) -> bool:
    return raw is None or bytes(raw) == b"null"


def _with_usage(raw: Raw | None) -> bytes:
    """The caller's stream options, and the usage that the gateway needs in any case."""
    options = {} if _is_absent(raw) else _objects.decode(raw or b"{}")
    return _encode({**options, "include_usage": True})


def _own_metadata(raw: Raw | None) -> dict[str, str]:
    """The caller's metadata in OpenAI's form (texts), without what LiteLLM would take for instructions."""
    if _is_absent(raw):
        return {}
    try:
        metadata = _objects.decode(raw or b"{}")
    except msgspec.ValidationError:
        raise InvalidRequestBody("`metadata` must be an object.", param="metadata") from None
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
