"""Understanding a request's bytes, and writing the upstream's."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.body import CONTROL_FIELDS, parse, upstream_body, upstream_tail
from routing.errors import InvalidJson, InvalidRequestBody

_MESSAGES = [{"role": "user", "content": "hi"}]
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
_READ = {"messages", "model", "stream", "stream_options", "tools", "n", "max_tokens", "max_completion_tokens"}
_names = st.text(min_size=1).filter(
    lambda name: (
        name not in CONTROL_FIELDS | _READ | {"metadata", "temperature"}
        and not name.startswith(("litellm_", "aws_", "azure_", "vertex_", "watsonx_", "s3_"))
    )
)


def sent(body: dict[str, Any], *, max_tokens: int = 10, temperature: float | None = None) -> dict[str, Any]:
    call = parse(json.dumps(body).encode())
    content: dict[str, Any] = json.loads(
        upstream_body("some-model", upstream_tail(call, max_tokens=max_tokens, temperature=temperature))
    )
    return content


@given(extra=st.dictionaries(_names, _values, max_size=6))
def test_what_the_gateway_does_not_know_passes_untouched(extra: dict[str, Any]) -> None:
    """Property 8: Request Parameter Preservation."""
    found = sent({"messages": _MESSAGES, **extra})
    assert {name: found[name] for name in extra} == extra
    assert found["messages"] == _MESSAGES


def test_kept_fields_are_kept_byte_for_byte() -> None:
    """Property 8: Request Parameter Preservation. Not even white space or the form of a number changes."""
    odd = b'{"seed" : 1.0e2,"messages":[ {"role":"user","content":"\\u00fc  \xc3\xbc"} ],"x":  [1 ,2]}'
    tail = upstream_tail(parse(odd), max_tokens=5, temperature=None)
    for piece in (b'"seed":1.0e2', b'[ {"role":"user","content":"\\u00fc  \xc3\xbc"} ]', b'"x":[1 ,2]'):
        assert piece in tail


@given(body=st.binary(max_size=300))
def test_any_bytes_are_understood_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidJson, InvalidRequestBody):
        parse(body)


def test_the_cap_and_the_default_hold() -> None:
    def most(**fields: Any) -> int:
        return parse(json.dumps({"messages": _MESSAGES, **fields}).encode()).max_tokens(default=100, cap=1000)

    assert most() == 100
    assert most(max_tokens=7) == 7
    assert most(max_tokens=5_000) == 1_000
    assert most(max_completion_tokens=6, max_tokens=9) == 6
    assert most(max_tokens=None) == 100


def test_usage_is_always_asked_for_in_streams() -> None:
    options = {"include_usage": False, "x": 1}
    assert sent({"messages": _MESSAGES, "stream": True})["stream_options"] == {"include_usage": True}
    found = sent({"messages": _MESSAGES, "stream": True, "stream_options": options})
    assert found["stream_options"] == {"include_usage": True, "x": 1}
    assert "stream_options" not in sent({"messages": _MESSAGES})


@pytest.mark.parametrize("name", sorted(CONTROL_FIELDS))
def test_orders_to_litellm_are_dropped(name: str) -> None:
    assert name not in sent({"messages": _MESSAGES, name: "x"})


def test_images_are_counted_and_their_bytes_are_not_text() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    call = parse(json.dumps({"messages": [{"role": "user", "content": [picture]}]}).encode())
    size = call.size(10)
    assert size.images == 1
    assert 2_000 <= size.prompt_tokens < 2_200


def test_the_prompt_is_the_last_user_message() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": [{"type": "text", "text": "second"}]},
    ]
    prompt = parse(json.dumps({"messages": messages}).encode()).prompt()
    assert (prompt.last_user_text, prompt.system_text) == ("second", "be brief")
