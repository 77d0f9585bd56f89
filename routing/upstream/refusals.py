"""Refusals of the upstream: what an error's body says, in whatever shape, and whose fault it is. Pure.

LiteLLM wraps the provider's message in its own class names and routing notes, replaces the code by the status, and
often hands the provider's whole JSON on as the message. Clients act on codes and words (they compact a conversation
that is too long), so both are recovered.

The message may quote the caller: every pattern here takes linear time, because it begins at a word boundary and its
repetitions are bounded.
"""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from codexflow.lib.log import redact
from routing.errors import Cause, UpstreamRefused

# Longer bodies are cut: the beginning has the message.
MAX_BODY_BYTES = 64 * 1024
MAX_READ_CHARS = 8_000
MAX_MESSAGE_CHARS = 2_000
# Of JSON inside of a message inside of JSON.
_MAX_DEPTH = 12
_MAX_ITEMS = 10

CONTEXT_TOO_LONG = "context_length_exceeded"
MODEL_NOT_FOUND = "model_not_found"
INSUFFICIENT_QUOTA = "insufficient_quota"
_CONTENT_CODES = ("content_filter", "content_policy_violation")


class Refusal(Struct, frozen=True, kw_only=True):
    """An error of the upstream as its body tells it; what it does not tell is empty. `message` is not scrubbed."""

    message: str = ""
    code: str = ""
    kind: str = ""
    param: str | None = None


def read(body: bytes) -> Refusal:
    """Read an error's body. Never raises: of what cannot be read nothing is known."""
    text = body[:MAX_BODY_BYTES].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return Refusal()  # a page of HTML, by a proxy on the way
    return _in_text(text, 0)


_STRUCTURED = ("{", "[", "b'", 'b"')


def _in_text(text: str, depth: int) -> Refusal:
    """Read a text that may be the provider's JSON, LiteLLM's wrapping around it, or the message itself."""
    if not text.startswith(_STRUCTURED):
        text = unwrapped(text)
    if text.startswith(_STRUCTURED):
        value = _parsed(text) if depth < _MAX_DEPTH else None
        if isinstance(value, dict | list):
            return _in_value(value, depth + 1)
        if '"' in text or "'" in text:
            return _searched(text)
    return Refusal(message=_clean(text[:MAX_READ_CHARS]))


def _parsed(text: str) -> Any:
    """Decode JSON, or the way Python writes the same values, as the providers' SDKs put them into messages."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        pass
    try:
        return json.loads(text)  # also NaN and halves of surrogates
    except (ValueError, RecursionError):
        pass
    if len(text) > MAX_READ_CHARS:
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(value, bytes):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


_MESSAGE_NAMES = (
    "message",
    "Message",
    "msg",
    "error_message",
    "errorMessage",
    "error_msg",
    "error_description",
    "reason",
    "title",
)
_INNER_NAMES = ("error", "errors", "detail", "details", "Error", "cause")
_CODE_NAMES = ("code", "error_code", "errorCode")


def _in_value(value: Any, depth: int) -> Refusal:
    if depth > _MAX_DEPTH:
        return Refusal()
    if isinstance(value, str):
        return _in_text(value, depth)
    if isinstance(value, list):
        return _in_list(value, depth)
    return _in_object(value, depth) if isinstance(value, dict) else Refusal()


def _in_list(value: list[Any], depth: int) -> Refusal:
    """Read a list of errors: the first decides, and the messages of all are joined."""
    found = [each for each in (_in_value(item, depth + 1) for item in value[:_MAX_ITEMS]) if each.message]
    if not found:
        return Refusal()
    return msgspec.structs.replace(found[0], message="; ".join(dict.fromkeys(each.message for each in found)))


def _in_object(value: dict[str, Any], depth: int) -> Refusal:
    own = Refusal(
        code=_code(next((value[name] for name in _CODE_NAMES if value.get(name)), None)),
        kind=_word(value.get("type")) or _word(value.get("status")),
        param=_param(value.get("param") or value.get("loc") or value.get("field")),
    )
    message = next((found for name in _MESSAGE_NAMES if (found := _in_value(value.get(name), depth + 1)).message), None)
    inner = next((found for name in _INNER_NAMES if (found := _in_value(value.get(name), depth + 1)).message), None)
    if raw := _raw_of_provider(value, depth):
        message = raw
    if message is None or (inner is not None and " " in inner.message and " " not in message.message):
        chosen = inner or Refusal()
    else:
        chosen = message
        if inner is not None and not own.code:
            own = msgspec.structs.replace(own, code=inner.code or _code(inner.message))
    if "loc" in value and own.param and chosen.message:
        chosen = msgspec.structs.replace(chosen, message=f"{own.param}: {chosen.message}")
    return Refusal(
        message=chosen.message,
        code=chosen.code or own.code,
        kind=chosen.kind or own.kind,
        param=chosen.param or own.param,
    )


def _raw_of_provider(value: Mapping[str, Any], depth: int) -> Refusal | None:
    """OpenRouter says "Provider returned error" and has the provider's own body in `metadata.raw`."""
    metadata = value.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    found = _in_value(raw, depth + 1)
    return found if found.message else None


_SEARCHED = (
    re.compile(r'"(?:message|Message|msg|detail)"\s{0,5}:\s{0,5}"((?:[^"\\]|\\.){0,8000})', re.DOTALL),
    re.compile(r'"code"\s{0,5}:\s{0,5}"(\w{1,64})"'),
    re.compile(r'"type"\s{0,5}:\s{0,5}"(\w{1,64})"'),
)


def _searched(text: str) -> Refusal:
    """Read JSON that was cut or is broken: the first message, code and type in it."""
    text = text[:MAX_BODY_BYTES]
    found = [pattern.search(text) for pattern in _SEARCHED]
    message, code, kind = (_unescaped(each[1]) if each else "" for each in found)
    return Refusal(message=_clean(unwrapped(message)), code=_code(code), kind=_word(kind))


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text


def _clean(text: str) -> str:
    """Remove what cannot be sent: halves of surrogates and control characters."""
    return "".join(char for char in text.encode("utf-8", "replace").decode() if char >= " " or char in "\n\t").strip()


def _word(value: Any) -> str:
    return value[:100] if isinstance(value, str) else ""


_CODE = re.compile(r"[a-z0-9_]{1,64}")


def _code(value: Any) -> str:
    """Return a code in OpenAI's form; LiteLLM puts the status in its place, others numbers and names of their own."""
    return value if isinstance(value, str) and not value.isdigit() and _CODE.fullmatch(value) else ""


_PARAM = re.compile(r"[\w.\[\]-]{1,100}")
_PARAM_NAMES = ("name", "param", "field", "path")


def _param(value: Any) -> str | None:
    """Return the place in the request: a text, an object that names it, or a path."""
    if isinstance(value, dict):
        value = next((value[name] for name in _PARAM_NAMES if isinstance(value.get(name), str)), None)
    if isinstance(value, list):
        steps = [each for each in value if isinstance(each, str | int)][:_MAX_ITEMS]
        steps = steps[1:] if steps[:1] == ["body"] else steps
        value = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in steps).lstrip(".")
    return value if isinstance(value, str) and _PARAM.fullmatch(value) else None


# LiteLLM's class names, and the SDKs', in front of the message: a chain of them.
_NAMES = r"(?:litellm\.)?[A-Za-z]\w{0,60}(?:Error|Exception)"
_PREFIX = re.compile(
    rf"(?:\s{{0,5}}(?:{_NAMES}(?: {_NAMES})?(?::| -)|litellm\.\w{{1,60}}:|Error code: \d{{3}} -))+\s{{0,5}}"
)
# And in the middle, where its messages mention its own settings.
_OWN_NAMES = re.compile(r"`?\blitellm\.\w{1,60}(?:[ =]{1,3}True)?`?:?\s{0,2}", re.IGNORECASE)
# What it adds after the message. The full stop in front of "Received" is its own.
_SUFFIX = re.compile(
    r"\. Received Model Group="
    r"|\bReceived Model Group="
    r"|\bLiteLLM: model group '"
    r"|\bmodel=[^\n]{0,200}?\. (?:context_window|content_policy)_fallback"
    r"|\bSet '(?:context_window|content_policy)_fallback'"
    r"|\bAvailable Model Group Fallbacks="
    r"|\bNo fallback model group found"
    r"|\bError doing the fallback:"
    r"|,? ?\bLiteLLM (?:Retried|Max Retries):"
    r"|\bTo drop (?:these|unsupported params),? set "
    r"|\bHandle with `litellm\."
)
_ADDRESS = re.compile(
    r"https?://[^\s\"'<>]+|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"
    r"|\b[\w-]{1,60}(?:\.[\w-]{1,60}){0,5}\.(?:internal|local|lan|svc)(?:\.[\w-]{1,60}){0,3}(?::\d{1,5})?\b"
)
# Keys and accounts at providers, besides those of `redact`.
_OWN_IDS = re.compile(r"\b(?:AIza|gsk_|xai-|hf_|pplx-|r8_|AKIA|(?:org|proj)[-_])[0-9A-Za-z_-]{10,100}")


def unwrapped(message: str) -> str:
    """Return the provider's message without what LiteLLM puts around it; sentences stay whole."""
    text = message[:MAX_READ_CHARS]
    if prefix := _PREFIX.match(text):
        text = text[prefix.end() :]
    if suffix := _SUFFIX.search(text):
        text = text[: suffix.start()]
    return text.strip()


def scrub(message: str, *, host: str = "") -> str:
    """Remove keys, hosts and LiteLLM's wrappings from an upstream's message; `host` is the upstream's own."""
    text = _OWN_NAMES.sub("", unwrapped(message))
    text = _OWN_IDS.sub("[redacted]", _ADDRESS.sub("[upstream]", redact(text)))
    if host:
        text = text.replace(host, "[upstream]")
    return text.strip()[:MAX_MESSAGE_CHARS] or "The model refused this request."


# Codes that tell no more than the status: the words tell more.
_VAGUE_CODES = frozenset({
    "", "bad_request", "bad_response_status_code", "error", "invalid_argument", "invalid_parameter_error",
    "invalid_params", "invalid_request", "invalid_request_error", "none", "null", "provider_error", "server_error",
    "unknown", "unknown_error", "unprocessable_entity", "upstream_error", "validation_error",
})  # fmt: skip

_CONTEXT_WORDS = re.compile(
    r"context_length_exceeded|maximum (?:context|prompt|input) length|context ?(?:window|limit)"
    r"|\b(?:prompt|input) is too long"
    r"|context (?:length|size)[^\n]{0,40}(?:exceed|too (?:long|large|small))"
    r"|exceed[^\n]{0,40}context (?:length|size)"
    r"|input token count[^\n]{0,40}exceeds|exceeds the maximum number of tokens|exceeded model token limit"
    r"|reduce the length of (?:the|your) (?:messages|prompt|input)|tokens? ?> ?\d{1,9} ?maximum"
    r"|range of input length should be",
    re.IGNORECASE,
)
_QUOTA_WORDS = re.compile(
    r"insufficient_quota|exceeded your current quota|insufficient (?:account )?(?:balance|credits?|funds|quota)"
    r"|credit balance is too low|check your plan and billing|requires more credits|out of credits|billing_hard_limit",
    re.IGNORECASE,
)
# Some providers say the same about a limit of the minute.
_MINUTE_WORDS = re.compile(r"retry in|try again in|per[ _-]?minute|per[ _-]?second", re.IGNORECASE)
_MODEL_WORDS = re.compile(
    r"model_not_found|\bmodels?\b[^\n]{0,120}?\b(?:does not exist|not exist\b|not found|has been decommissioned"
    r"|has been (?:deprecated|retired|removed|shut down)|no longer (?:supported|available)|is not available)"
    r"|is not a valid model|unknown model|no such model|no endpoints found|no allowed providers are available",
    re.IGNORECASE,
)
_WORDS = (
    (CONTEXT_TOO_LONG, _CONTEXT_WORDS),
    (MODEL_NOT_FOUND, _MODEL_WORDS),
    (INSUFFICIENT_QUOTA, _QUOTA_WORDS),
    ("content_filter", re.compile(r"content_filter", re.IGNORECASE)),
    (
        "content_policy_violation",
        re.compile(
            r"content_?policy|content management policy|result of our safety system|usage polic(?:y|ies)"
            r"|flagged (?:by|for|as)|blocked by (?:the )?(?:safety|content)",
            re.IGNORECASE,
        ),
    ),
    (
        "invalid_image_format",
        re.compile(r"(?:invalid|unsupported) image[^\n]{0,60}format|image[^\n]{0,40}unsupported format", re.IGNORECASE),
    ),
    (
        "invalid_image",
        re.compile(
            r"(?:invalid|unsupported|could not process|unable to process|failed to \w{1,12}) (?:the )?image",
            re.IGNORECASE,
        ),
    ),
)
_KNOWN_CODES = frozenset(name for name, _ in _WORDS)


def code_of(refusal: Refusal) -> str:
    """Return OpenAI's error code; where the body has none that tells anything, by its words."""
    if refusal.code not in _VAGUE_CODES:
        return refusal.code
    if refusal.kind in _KNOWN_CODES:
        return refusal.kind
    message = refusal.message[:MAX_READ_CHARS]
    by_words = next((name for name, words in _WORDS if words.search(message)), "")
    return by_words or refusal.code or UpstreamRefused.code


# Errors about our own key or account, with LiteLLM or with the provider: types, codes and messages.
_ACCOUNT_CODES = frozenset({
    "account_deactivated", "auth_error", "authentication_error", "billing_hard_limit_reached", "billing_not_active",
    "budget_exceeded", "expired_key", "insufficient_quota", "invalid_api_key", "key_model_access_denied",
    "no_db_connection", "team_model_access_denied", "token_not_found_in_db",
})  # fmt: skip
_ACCOUNT_WORDS = re.compile(
    r"incorrect api key|invalid_api_key|api key not valid|invalid x-api-key|credit balance is too low"
    r"|organization must be verified",
    re.IGNORECASE,
)
_MODEL_CODES = frozenset({
    "invalid_model", "model_decommissioned", "model_deprecated", MODEL_NOT_FOUND, "model_not_supported",
    "unknown_model", "deployment_not_found",
})  # fmt: skip
# Only as the beginning of a message: further on it may quote the caller.
_NO_MODEL = re.compile(
    r"(?:the )?(?:requested )?model\b[^\n]{0,120}?\b(?:does not exist|not exist|not found|decommissioned|deprecated"
    r"|retired|no longer (?:supported|available))|[\w./:-]{1,120} is not a valid model|unknown model|no such model",
    re.IGNORECASE,
)
# LiteLLM's own sentences: its configuration lacks the model, or no deployment of it is left.
_LITELLM_LACKS = re.compile(
    r"There are no healthy deployments for this model|Invalid model name passed in model="
    r"|LLM Provider NOT provided"
)
# A 404 that says no more: the model's name, as Anthropic does, or that there is no such endpoint.
_NOT_FOUND = re.compile(
    r"(?:the )?model:? [\w./:@-]{1,120}\W{0,10}|"
    r"(?:\W|error|\d{3}){0,10}(?:(?:page|url|route|endpoint|resource|path) )?not found\W{0,10}"
    r"|[^\n]{0,40}(?:invalid|unknown|unrecognized) (?:request )?(?:url|path|endpoint|route)[^\n]{0,200}",
    re.IGNORECASE,
)
_MODERATION = re.compile(
    r"moderat|flagged|safety|content[ _]?(?:policy|filter)|usage polic|harmful|inappropriate|sensitive|prohibited"
    r"|guardrail|violence|violat",
    re.IGNORECASE,
)
# "Your account was disabled for violating our policy" is no moderation of this request.
_OUR_ACCOUNT = re.compile(
    r"\b(?:account|project|subscription|api key|organization) (?:is|has|was|does|must|may)", re.IGNORECASE
)


def cause_of(status: int, refusal: Refusal) -> Cause | None:
    """Return why a 4xx is the operator's to mend and not the caller's; None when it is the caller's.

    Of a 429 too: an account without money is no rate limit. What the provider's status tells counts more than words,
    which may quote the caller; a 403 is about our account unless its words are those of moderation.
    """
    if status in (401, 402):
        return "account_refused"
    message = refusal.message[:MAX_READ_CHARS]
    code = code_of(refusal)
    if code in _CONTENT_CODES and not _OUR_ACCOUNT.search(message):
        return None
    is_own = {refusal.kind, refusal.code} & _ACCOUNT_CODES or _ACCOUNT_WORDS.search(message)
    if status == 429:
        is_spent = is_own or (_QUOTA_WORDS.search(message) and not _MINUTE_WORDS.search(message))
        return "account_refused" if is_spent else None
    if is_own:
        return "account_refused"
    if refusal.code in _MODEL_CODES or _LITELLM_LACKS.search(message):
        return "model_missing"
    if status == 404 and (code == MODEL_NOT_FOUND or not message or _NOT_FOUND.fullmatch(message)):
        return "model_missing"
    if status == 400 and _NO_MODEL.match(message):
        return "model_missing"
    if status == 403 and (_OUR_ACCOUNT.search(message) or not _MODERATION.search(message)):
        return "account_refused"
    return None


# Words that Claude Code compacts on, of Anthropic's API.
_SAID_AS_ANTHROPIC = re.compile(
    r"prompt is too long: \d+ tokens > \d+ maximum|input length and `max_tokens` exceed context limit: ", re.IGNORECASE
)
_NUMBER = r"(\d{1,3}(?:,\d{3}){1,4}|\d{1,12})"
_MAXIMUM = (
    re.compile(rf"> ?{_NUMBER}"),
    re.compile(
        rf"\b(?:max(?:imum)?|limit|allowed|context (?:length|size|window)|up to)\b[^\d\n]{{0,60}}{_NUMBER}",
        re.IGNORECASE,
    ),
    re.compile(rf"{_NUMBER}[ -](?:tokens? )?(?:max(?:imum)?|limit|context)", re.IGNORECASE),
)
_ANY_NUMBER = re.compile(rf"\b{_NUMBER}\b")
# Smaller numbers are no sizes of a context.
_LEAST_TOKENS = 256


def too_long_for_anthropic(message: str, *, estimated_tokens: int, context_tokens: int) -> str:
    """Say that a context is too long in the words of Anthropic's API: `prompt is too long: N tokens > M maximum`.

    Numbers are the message's own; without them the estimate, and the model's context where it is known (else 0).
    """
    if _SAID_AS_ANTHROPIC.search(message):
        return message
    found = next((each for pattern in _MAXIMUM if (each := pattern.search(message))), None)
    maximum = _number(found[1]) if found else 0
    maximum = maximum if maximum >= _LEAST_TOKENS else context_tokens
    if not maximum:
        return f"prompt is too long: {message}"
    others = [number for each in _ANY_NUMBER.findall(message) if maximum < (number := _number(each)) < 100 * maximum]
    tokens = max(others, default=max(estimated_tokens, maximum + 1))
    return f"prompt is too long: {tokens} tokens > {maximum} maximum"


def _number(text: str) -> int:
    return int(text.replace(",", ""))
