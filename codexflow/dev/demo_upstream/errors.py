"""Failures in the words of LiteLLM, or of an OpenAI-like provider. Pure."""

import json

from codexflow.dev.demo_upstream.chat import Role

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
_SAYS = {
    401: "Incorrect API key provided: sk-demo",
    403: "Project does not have access",
    429: "Rate limit reached for the demo upstream",
}


def envelope(message: str, kind: str, code: int | str | None, param: str | None = None) -> bytes:
    shown = str(code) if code is not None else None
    return json.dumps(
        {"error": {"message": message, "type": kind, "param": param, "code": shown}}, separators=(",", ":")
    ).encode()


def provider_failed(status: int, model: str, role: Role, *, says: str = "", param: str | None = None) -> bytes:
    """The model's provider answered with `status`."""
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


def mid_stream(model: str) -> bytes:
    """What LiteLLM puts into a stream whose provider broke off."""
    says = "APIConnectionError: OpenAIException - [demo upstream] error inside the stream"
    message = f"litellm.APIConnectionError: {says}{_group(model)}"
    return envelope(message, "internal_server_error", 500)


def _group(model: str) -> str:
    return f"\n\nLiteLLM: model group '{model}' failed with the error above. No fallback was attempted."


NO_KEY = envelope("Authentication Error, No api key passed in.", "auth_error", 401)
# Any key but the right one, while LiteLLM has no database to look it up in.
WRONG_KEY = envelope("No connected db.", "no_db_connection", 400)
NO_DATABASE = envelope("Database not connected", "internal_server_error", 500)
