"""Refusals of the upstream: shapes, codes, causes, and what is removed from messages."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.upstream.refusals import (
    MAX_MESSAGE_CHARS,
    Refusal,
    cause_of,
    code_of,
    read,
    scrub,
    too_long_for_anthropic,
)

LONG = "This model's maximum context length is 128000 tokens. However, your messages resulted in 999999 tokens."
GROUP = "\n\nLiteLLM: model group 'oai' failed with the error above. No fallback was attempted."
CONTEXT_NOTES = (
    "\nmodel=oai. context_window_fallbacks=None. fallbacks=None."
    "\n\nSet 'context_window_fallback' - https://docs.litellm.ai/docs/routing#fallbacks"
)


UNSUPPORTED = (
    "openai does not support parameters: ['reasoning_effort'], for model=gpt-4o-mini. To drop these, set "
    "`litellm.drop_params=True` or for proxy:\n\n`litellm_settings:\n drop_params: true`\n. \n If you want to use "
    "these params dynamically send allowed_openai_params=['reasoning_effort'] in your request."
)


def wrapped(message: str, name: str = "BadRequestError", provider: str = "OpenAIException", notes: str = "") -> bytes:
    """LiteLLM's body around a provider's message, as version 1.109 writes it."""
    text = f"litellm.{name}: {provider}{' - ' if provider else ''}{message}{notes}{GROUP}"
    return json.dumps({"error": {"message": text, "type": name, "param": None, "code": "400"}}).encode()


def told(body: Any) -> tuple[str, str, str | None]:
    """What a caller is told: message, code and param."""
    refusal = read(body if isinstance(body, bytes) else json.dumps(body).encode())
    return scrub(refusal.message), code_of(refusal), refusal.param


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"error": {"message": "Too hot.", "param": "temperature", "code": "invalid_value"}},
            ("Too hot.", "invalid_value", "temperature"),
        ),
        (
            {"error": {"message": "Too hot.", "param": {"name": "temperature"}, "code": None}},
            ("Too hot.", "upstream_refused", "temperature"),
        ),
        (
            {"error": {"message": "Too hot.", "param": ["messages", 0, "role"]}},
            ("Too hot.", "upstream_refused", "messages[0].role"),
        ),
        ({"error": {"message": "Too hot.", "param": 5, "code": 400.5}}, ("Too hot.", "upstream_refused", None)),
        ({"error": {"message": LONG, "code": 400}}, (LONG, "context_length_exceeded", None)),
        ({"error": {"message": LONG, "code": "400"}}, (LONG, "context_length_exceeded", None)),
        ({"error": LONG}, (LONG, "context_length_exceeded", None)),
        ({"message": LONG}, (LONG, "context_length_exceeded", None)),
        ({"Message": LONG}, (LONG, "context_length_exceeded", None)),
        ({"detail": LONG}, (LONG, "context_length_exceeded", None)),
        ({"detail": {"error": LONG}}, (LONG, "context_length_exceeded", None)),
        (
            {"object": "error", "message": LONG, "type": "BadRequestError", "code": 400},
            (LONG, "context_length_exceeded", None),
        ),
        ({"error": "invalid_request", "message": LONG}, (LONG, "context_length_exceeded", None)),
        ({"error": {"error": {"message": LONG}}}, (LONG, "context_length_exceeded", None)),
        ({"error": {"message": {"message": LONG}}}, (LONG, "context_length_exceeded", None)),
        ({"error": {"message": [LONG]}}, (LONG, "context_length_exceeded", None)),
        ({"error": {"message": json.dumps({"error": {"message": LONG}})}}, (LONG, "context_length_exceeded", None)),
        ({"errors": [LONG, "Second."]}, (f"{LONG}; Second.", "context_length_exceeded", None)),
        (
            [{"error": {"code": 400, "message": LONG, "status": "INVALID_ARGUMENT"}}],
            (LONG, "context_length_exceeded", None),
        ),
        (
            {"detail": [{"loc": ["body", "tools", 0], "msg": "a tool needs a name"}]},
            ("tools[0]: a tool needs a name", "upstream_refused", "tools[0]"),
        ),
        (
            {
                "error": {
                    "message": "Provider returned error",
                    "metadata": {"raw": json.dumps({"error": {"message": LONG}})},
                }
            },
            (LONG, "context_length_exceeded", None),
        ),
        (
            {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: too large."}},
            ("max_tokens: too large.", "upstream_refused", None),
        ),
        (
            {"error": {"message": "n_ctx", "type": "context_length_exceeded"}},
            ("n_ctx", "context_length_exceeded", None),
        ),
        ({"error": {"message": LONG, "code": "invalid_request_error"}}, (LONG, "context_length_exceeded", None)),
        (LONG.encode(), (LONG, "context_length_exceeded", None)),
        (f"\ufeff{LONG}".encode(), (f"\ufeff{LONG}", "context_length_exceeded", None)),
        (b'{"error":{"message":"half \\ud800 of NaN","code":NaN}}', ("half ? of NaN", "upstream_refused", None)),
        (b'{"error":{"message":"cut off \\"here\\"', ('cut off "here"', "upstream_refused", None)),
        (
            json.dumps({"error": {"message": LONG, "metadata": "x" * 100_000}}).encode(),
            (LONG, "context_length_exceeded", None),
        ),
        (b"<!doctype html><p>400</p>", ("The model refused this request.", "upstream_refused", None)),
        (b"", ("The model refused this request.", "upstream_refused", None)),
        (b"null", ("null", "upstream_refused", None)),
        (b"[]", ("The model refused this request.", "upstream_refused", None)),
        (b"{}", ("The model refused this request.", "upstream_refused", None)),
        (b'{"error":null}', ("The model refused this request.", "upstream_refused", None)),
    ],
)
def test_every_shape_keeps_its_words_code_and_param(body: Any, expected: tuple[str, str, str | None]) -> None:
    assert told(body) == expected


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (wrapped(LONG, notes=CONTEXT_NOTES), LONG, "context_length_exceeded"),
        (
            wrapped(
                f"ContextWindowExceededError: OpenAIException - {LONG}",
                "ContextWindowExceededError",
                "litellm.BadRequestError",
                CONTEXT_NOTES,
            ),
            LONG,
            "context_length_exceeded",
        ),
        (
            wrapped(json.dumps({"error": {"message": LONG, "code": "context_length_exceeded"}}), notes=CONTEXT_NOTES),
            LONG,
            "context_length_exceeded",
        ),
        (
            wrapped("Error code: 400 - " + str({"error": "it's 9000 tokens, the maximum context length is 8192"})),
            "it's 9000 tokens, the maximum context length is 8192",
            "context_length_exceeded",
        ),
        (
            wrapped("Error code: 422 - " + str({"detail": [{"loc": ["body", "tools"], "msg": "a tool needs a name"}]})),
            "tools: a tool needs a name",
            "upstream_refused",
        ),
        (
            wrapped(
                str(json.dumps({"error": {"message": "Bad."}}).encode()), provider="VertexAIException BadRequestError"
            ),
            "Bad.",
            "upstream_refused",
        ),
        (
            wrapped(json.dumps({"Message": "Input is too long for requested model."}), provider="BedrockException"),
            "Input is too long for requested model.",
            "context_length_exceeded",
        ),
        (
            wrapped(
                "Your request was rejected as a result of our safety system.",
                notes="\nmodel=oai. content_policy_fallback=None. fallbacks=None.\n\nSet 'content_policy_fallback' - https://docs",
            ),
            "Your request was rejected as a result of our safety system.",
            "content_policy_violation",
        ),
        (
            wrapped("Invalid image. Supported formats: png."),
            "Invalid image. Supported formats: png.",
            "invalid_image_format",
        ),
        (wrapped("Could not process image"), "Could not process image", "invalid_image"),
        (
            wrapped("Too hot.. Received Model Group=oai\nAvailable Model Group Fallbacks=None"),
            "Too hot.",
            "upstream_refused",
        ),
        (wrapped("Too hot. LiteLLM Retried: 1 times, LiteLLM Max Retries: 2"), "Too hot.", "upstream_refused"),
        (
            wrapped(UNSUPPORTED, "UnsupportedParamsError", provider=""),
            "openai does not support parameters: ['reasoning_effort'], for model=gpt-4o-mini.",
            "upstream_refused",
        ),
        (
            wrapped(
                "gpt-4o-mini doesn't support `reasoning.effort`. "
                "To drop unsupported params set `litellm.drop_params = True`"
            ),
            "gpt-4o-mini doesn't support `reasoning.effort`.",
            "upstream_refused",
        ),
    ],
)
def test_litellms_wrapping_is_cut_and_sentences_stay_whole(body: bytes, message: str, code: str) -> None:
    assert told(body)[:2] == (message, code)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("litellm.BadRequestError: OpenAIException - it is 8192. Received Model Group=gpt-4o\nx", "it is 8192"),
        ("litellm.AuthenticationError: key sk-abcdefghijkl is wrong", "key [redacted] is wrong"),
        ("cannot reach http://10.0.0.7:4000/v1", "cannot reach [upstream]"),
        ("cannot reach litellm-7.svc.cluster:4000", "cannot reach [upstream]"),
        ("key AIzaSyA1234567890abcdef of org-0123456789abc", "key [redacted] of [redacted]"),
        ("Your request was rejected.", "Your request was rejected."),
        ("ValueError is no name of LiteLLM's here: wait.", "ValueError is no name of LiteLLM's here: wait."),
    ],
)
def test_keys_hosts_and_litellm_names_are_removed_from_messages(raw: str, clean: str) -> None:
    assert scrub(raw) == clean


def test_the_upstreams_host_name_is_removed() -> None:
    assert scrub("Cannot connect to litellm-7:4000", host="litellm-7") == "Cannot connect to [upstream]:4000"


PIECES = [
    "x",
    "A",
    "AError",
    "LException:",
    "litellm.A",
    "cfx_",
    "model=",
    "a:",
    ".\n",
    " ",
    "{",
    "[",
    '{"error":',
    "b'",
    '"message":"',
    '"code":"',
    "\\",
    '\\"',
    "1,",
    "model ",
    "exceed",
    "maximum",
    "image ",
    "a.",
    "1.",
    "litellm.AError: ",
    "Error code: 400 - ",
    "not ",
    "limit 1",
]


@pytest.mark.parametrize("piece", PIECES)
def test_reading_takes_linear_time(piece: str) -> None:
    """Patterns that could begin anywhere took minutes on these, which blocked the process."""
    text = "://" + piece * 10_000
    for body in (text.encode(), (piece * 10_000).encode(), json.dumps({"error": {"message": text}}).encode()):
        refusal = read(body)
        assert scrub(refusal.message)
        code_of(refusal)
        cause_of(400, refusal)
        too_long_for_anthropic(refusal.message, estimated_tokens=1, context_tokens=1)


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(PIECES),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["error", "errors", "message", "detail", "code", "type", "param", "loc", "msg", "metadata", "raw"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
bodies = (
    st.binary(max_size=300)
    | values.map(lambda value: json.dumps(value).encode())
    | values.map(lambda v: str(v).encode("utf-8", "replace"))
)


@given(body=bodies, status=st.integers(400, 499))
def test_any_body_can_be_read(body: bytes, status: int) -> None:
    refusal = read(body)
    message = scrub(refusal.message)
    assert 0 < len(message) <= MAX_MESSAGE_CHARS
    message.encode()
    assert code_of(refusal)
    assert cause_of(status, refusal) in (None, "model_missing", "account_refused")


@given(body=values, secret=st.sampled_from(["sk-0123456789abcdef", "http://10.1.2.3:4000/v1", "10.1.2.3:4000"]))
def test_no_key_and_no_host_passes(body: Any, secret: str) -> None:
    for shape in (
        {"error": {"message": f"Bad {secret} call", "x": body}},
        {"detail": f"Bad {secret} call"},
        f"Bad {secret} call",
    ):
        assert secret not in told(shape)[0]


def test_bodies_nested_without_end_are_no_fault() -> None:
    for body in (b"[" * 50_000, b'{"error":' * 9_000, json.dumps({"error": "[" * 7_000}).encode()):
        began_s = time.process_time()
        told(body)
        assert time.process_time() - began_s < 2


NEUTRAL = "Something about the request."


@pytest.mark.parametrize(
    ("status", "fields", "cause"),
    [
        (400, {"message": NEUTRAL}, None),
        (403, {"message": "Your input was flagged by moderation: violence."}, None),
        (403, {"message": "Blocked.", "code": "content_policy_violation"}, None),
        (403, {"message": "The request violates our usage policies."}, None),
        (404, {"message": "No file with id file-17 in this request."}, None),
        (422, {"message": NEUTRAL}, None),
        (429, {"message": "Rate limit reached for requests."}, None),
        (429, {"message": "You exceeded your current quota, limit: 10 per minute. Please retry in 12.3s."}, None),
        (401, {"message": NEUTRAL}, "account_refused"),
        (402, {"message": NEUTRAL}, "account_refused"),
        (403, {"message": NEUTRAL}, "account_refused"),
        (403, {"message": "Project does not have access"}, "account_refused"),
        (403, {"message": "Your account has been disabled for violating our usage policies."}, "account_refused"),
        (403, {"message": "Country, region, or territory not supported"}, "account_refused"),
        (
            429,
            {"message": "You exceeded your current quota, please check your plan and billing details."},
            "account_refused",
        ),
        (429, {"message": NEUTRAL, "code": "insufficient_quota"}, "account_refused"),
        (429, {"message": NEUTRAL, "type": "insufficient_quota"}, "account_refused"),
        (400, {"message": "Budget has been exceeded!", "type": "budget_exceeded"}, "account_refused"),
        (400, {"message": "Your credit balance is too low to access this API."}, "account_refused"),
        (404, {"message": "The model `gpt-9` does not exist or you do not have access to it."}, "model_missing"),
        (404, {"message": "model: claude-1", "code": "model_not_found"}, "model_missing"),
        (404, {"message": "Not Found"}, "model_missing"),
        (404, {"message": "404: Not Found"}, "model_missing"),
        (404, {}, "model_missing"),
        (
            400,
            {"message": "You passed in model=phantom-1. There are no healthy deployments for this model"},
            "model_missing",
        ),
        (
            400,
            {"message": "/chat/completions: Invalid model name passed in model=phantom-1. Call `/v1/models`"},
            "model_missing",
        ),
        (400, {"message": "openai/gpt-9 is not a valid model ID"}, "model_missing"),
        (400, {"message": "The model `llama-2` has been decommissioned and is no longer supported."}, "model_missing"),
        (400, {"message": "Invalid value: 'the model x does not exist'."}, None),
    ],
)
def test_whose_fault_a_refusal_is(status: int, fields: dict[str, str], cause: str | None) -> None:
    assert cause_of(status, read(json.dumps({"error": fields}).encode())) == cause
    text = f"litellm.NotFoundError: OpenAIException - {json.dumps({'error': fields})}{GROUP}"
    assert cause_of(status, read(json.dumps({"error": {"message": text, "code": str(status)}}).encode())) == cause


def test_anthropics_own_not_found_error_is_a_missing_model() -> None:
    body = b'{"type":"error","error":{"type":"not_found_error","message":"model: claude-1"}}'
    assert cause_of(404, read(body)) == "model_missing"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (LONG, "prompt is too long: 999999 tokens > 128000 maximum"),
        ("9000 tokens exceed the maximum context length of 8192", "prompt is too long: 9000 tokens > 8192 maximum"),
        (
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            "prompt is too long: 1200000 tokens > 1048576 maximum",
        ),
        (
            "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
            "prompt is too long: 537812 tokens > 131072 maximum",
        ),
        (
            "maximum context length is 128,000 tokens, you requested 130,000 tokens (129,000 in the messages)",
            "prompt is too long: 130000 tokens > 128000 maximum",
        ),
        ("prompt is too long: 208310 tokens > 200000 maximum", "prompt is too long: 208310 tokens > 200000 maximum"),
        (
            "input length and `max_tokens` exceed context limit: 199000 + 20000 > 200000, decrease it",
            "input length and `max_tokens` exceed context limit: 199000 + 20000 > 200000, decrease it",
        ),
        ("Input is too long for requested model.", "prompt is too long: 5000 tokens > 4096 maximum"),
        ("maximum context length is 128000 tokens", "prompt is too long: 128001 tokens > 128000 maximum"),
    ],
)
def test_a_long_context_is_said_in_anthropics_words(message: str, said: str) -> None:
    assert too_long_for_anthropic(message, estimated_tokens=5_000, context_tokens=4_096) == said


def test_without_any_number_it_is_said_without() -> None:
    said = too_long_for_anthropic("Input is too long.", estimated_tokens=5_000, context_tokens=0)
    assert said == "prompt is too long: Input is too long."


def test_an_estimate_below_the_maximum_is_no_number_to_tell() -> None:
    said = too_long_for_anthropic("Input is too long.", estimated_tokens=50, context_tokens=1_000)
    assert said == "prompt is too long: 1001 tokens > 1000 maximum"


@given(
    message=st.text() | st.from_regex(r"(maximum|limit|>|tokens| ){0,5}[0-9,]{0,30}(maximum| tokens){0,3}"),
    context=st.integers(0, 10**7),
)
def test_any_message_can_be_said_in_anthropics_words(message: str, context: int) -> None:
    assert too_long_for_anthropic(message, estimated_tokens=10, context_tokens=context)


def test_codes_that_tell_something_are_kept() -> None:
    assert code_of(Refusal(message=LONG, code="string_above_max_length")) == "string_above_max_length"
