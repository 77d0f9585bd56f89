"""Errors inside responses with status 200."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.surfaces.failures import is_error_name, tells_error
from routing.surfaces.responses import Completions, Messages, ResponseFormat, Responses
from routing.surfaces.sse import Kind

ERRORS: dict[str, Any] = {
    "text": {"error": "lost"},
    "number": {"error": 500},
    "errors": {"errors": ["lost"]},
    "baidu": {"error_code": 336003, "error_msg": "lost"},
    "minimax": {"choices": None, "base_resp": {"status_code": 1027, "status_msg": "lost"}},
    "alibaba": {"code": "DataInspectionFailed", "message": "lost", "request_id": "r"},
    "zhipu": {"code": 500, "msg": "lost", "success": False},
    "fastapi": {"detail": [{"msg": "lost"}]},
    "status": {"status": "error", "message": "lost"},
    "gemini": [{"error": {"code": 429, "message": "lost"}}],
    "bedrock": {"internalServerException": {"message": "lost"}},
    "amazon": {"message": "Too many tokens", "__type": "ThrottlingException"},
}
NONE: list[Any] = [
    {}, {"error": ""}, {"error": {}}, {"base_resp": {"status_code": 0}}, {"message": "queued"}, {"code": 200},
    {"status": "in_progress"}, {"success": True}, [], [{"index": 0}], None, "error", 7,
]  # fmt: skip
FORMATS = [pytest.param(each, id=each.__class__.__name__) for each in (Completions(), Messages(), Responses())]


@pytest.mark.parametrize("response_format", FORMATS)
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_an_error_of_any_provider_is_one_on_every_surface(response_format: ResponseFormat, error: Any) -> None:
    assert tells_error(error)
    assert response_format.classify(b"data: %b\n\n" % json.dumps(error).encode()).kind is Kind.ERROR


@pytest.mark.parametrize("payload", NONE)
def test_what_says_nothing_is_no_error(payload: Any) -> None:
    assert not tells_error(payload)
    assert Completions().classify(b"data: %b\n\n" % json.dumps(payload).encode()).kind is Kind.CONTENT


@pytest.mark.parametrize("response_format", FORMATS)
@pytest.mark.parametrize("data", ['{"message":"lost"}', "Overloaded", "", "{}"])
@pytest.mark.parametrize("name", ["error", "exception"])
def test_an_event_is_an_error_by_its_name(response_format: ResponseFormat, data: str, name: str) -> None:
    for raw in (f"event: {name}\ndata: {data}\n\n", f"id: 1\r\nevent:{name}\r\ndata: {data}\r\n\r\n"):
        assert is_error_name(raw.encode())
        assert response_format.classify(raw.encode()).kind is Kind.ERROR


@given(payload=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["error", "code", "message", "status", "base_resp", "type", "xException"]), inner, max_size=4
    ),
    max_leaves=8,
))  # fmt: skip
def test_any_payload_is_an_error_or_none(payload: Any) -> None:
    assert tells_error(payload) in (True, False)
