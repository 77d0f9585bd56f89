"""Error bodies of LiteLLM and of an OpenAI-like provider. Pure."""

import json

from codexflow.dev.demo_upstream.streams import Role

# status -> the exception LiteLLM names, the `type` it gives, the `type` OpenAI gives
_NAMES = {
    400: ("BadRequestError", "invalid_request_error", "invalid_request_error"),
    401: ("AuthenticationError", "authentication_error", "invalid_request_error"),
    403: ("APIError", "permission_error", "permission_error"),
    404: ("NotFoundError", "invalid_request_error", "invalid_request_error"),
    408: ("Timeout", "timeout_error", "timeout"),
    422: ("UnprocessableEntityError", "invalid_request_error", "invalid_request_error"),
    429: ("RateLimitError", "throttling_error", "rate_limit_error"),
    500: ("InternalServerError", "internal_server_error", "server_error"),
    502: ("BadGatewayError", "internal_server_error", "server_error"),
    503: ("ServiceUnavailableError", "internal_server_error", "server_error"),
    504: ("Timeout", "timeout_error", "server_error"),
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_SAYS = {
    401: "Incorrect API key provided: sk-demo",
    403: "Project does not have access",
    429: "Rate limit reached for the demo upstream",
}

# Provider messages for any status, by the `says` of a fault. {caller} is the caller's last message.
PROVIDERS_WORDS = {
    "context": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
    "too_long": "prompt is too long: 208310 tokens > 200000 maximum",
    "model": "The model `gpt-9` does not exist or you do not have access to it.",
    "policy": "Your request was rejected as a result of our safety system (content_policy_violation).",
    "filter": "The response was filtered (code: content_filter).",
    "key": "Incorrect API key provided: sk-proj-0123456789abcdef. You can find your API key at https://example.org/keys.",
    "credit": "Your credit balance is too low to access this API. Please go to Plans & Billing.",
    "echo": "Invalid value: '{caller}'.",
    "secrets": "Bad call to http://demo-provider.internal:8080/v1 with Bearer sk-provider-0123456789abcdef at "
    "10.1.2.3:4000: value not supported",
}


def envelope(message: str, kind: str, code: int | str | None, param: str | None = None) -> bytes:
    shown = str(code) if code is not None else None
    return json.dumps(
        {"error": {"message": message, "type": kind, "param": param, "code": shown}}, separators=(",", ":")
    ).encode()


def anthropic(message: str, status: int) -> bytes:
    kind = _ANTHROPIC_TYPES.get(status, "api_error")
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}, separators=(",", ":")).encode()


def as_anthropics(openai: bytes, status: int) -> bytes:
    """The same failure in the envelope of /v1/messages."""
    return anthropic(json.loads(openai)["error"]["message"], status)


def provider_failed(status: int, model: str, role: Role, *, says: str = "", param: str | None = None) -> bytes:
    """Build the error of a model whose provider returned `status`."""
    usual = _NAMES[400] if status < 500 else _NAMES[500]
    name, litellm_type, openai_type = _NAMES.get(status, ("APIError", usual[1], usual[2]))
    says = says or _SAYS.get(status, f"[demo upstream] {status} as asked for")
    if role == "provider":
        return envelope(says, openai_type, None, param)
    twice = f"{name}: " if status not in (400,) else ""
    return envelope(f"litellm.{name}: {twice}OpenAIException - {says}{_group(model)}", litellm_type, status, param)


def unknown_model(model: str, role: Role) -> tuple[int, bytes]:
    if role == "provider":
        return 404, envelope(f"The model `{model}` does not exist", "invalid_request_error", "model_not_found")
    says = f"You passed in model={model}. There are no healthy deployments for this model"
    message = f"litellm.BadRequestError: {says}{_group(model)}"
    return 400, envelope(message, "invalid_request_error", 400)


def mid_stream(model: str) -> str:
    """LiteLLM's error in a stream whose provider broke off."""
    says = "APIConnectionError: OpenAIException - [demo upstream] error inside the stream"
    return f"litellm.APIConnectionError: {says}{_group(model)}"


def _group(model: str) -> str:
    return f"\n\nLiteLLM: model group '{model}' failed with the error above. No fallback was attempted."


NO_KEY = envelope("Authentication Error, No api key passed in.", "auth_error", 401)
# Any key but the right one, while LiteLLM has no database to look it up in.
WRONG_KEY = envelope("No connected db.", "no_db_connection", 400)
NO_DATABASE = envelope("Database not connected", "internal_server_error", 500)
