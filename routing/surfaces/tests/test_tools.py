"""Hosted tools: which they are, what is sold, what is dropped and what is refused."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.catalogue.entries import PARTS, TOOL_UNITS, UNITS
from routing.errors import InvalidJson, InvalidRequestBody, ToolNotSold
from routing.surfaces.body import ParsedRequest, parse, upstream_tail
from routing.surfaces.requests import Chat, Completions, CountTokens, Embeddings, Messages, RequestSchema, Responses
from routing.surfaces.tools import DEFAULT_USES, added_by_agent, least_units, units_held

_USER = [{"role": "user", "content": "hi"}]
_INPUTS: dict[type[RequestSchema], dict[str, Any]] = {
    Chat: {"messages": _USER},
    Completions: {"prompt": "hi"},
    Responses: {"input": "hi"},
    Messages: {"messages": _USER},
    CountTokens: {"messages": _USER},
    Embeddings: {"input": "hi"},
}
SURFACES = tuple(schema for schema in _INPUTS if schema is not CountTokens)
_SCHEMA = {"type": "object", "properties": {"type": {"type": "string", "enum": ["web_search"]}}}
CODEX = {b"user-agent": b"codex_cli_rs/0.169.0 (Linux 6.1; x86_64) xterm", b"originator": b"codex_cli_rs"}

# Tools that the caller's program runs, as providers and agents write them.
OWN: list[Any] = [
    {"type": "function", "function": {"name": "f", "parameters": _SCHEMA}},
    {"type": "function", "function": {"name": "web_search"}},
    {"type": "function", "name": "f", "parameters": _SCHEMA, "strict": False},
    {"type": "function", "name": "googleSearch"},
    {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
    {"type": "custom", "custom": {"name": "sql"}},
    {"type": "custom", "name": "Edit", "input_schema": _SCHEMA},
    {"type": None, "name": "Edit", "input_schema": _SCHEMA},
    {"name": "Edit", "input_schema": _SCHEMA, "cache_control": {"type": "ephemeral"}},
    {"name": "WebSearch", "description": "run by the client", "input_schema": _SCHEMA},
    {"function": {"name": "f"}},
    {"type": "local_shell"},
    {"type": "shell"},
    {"type": "shell", "environment": None},
    {"type": "shell", "environment": {"type": "local"}},
    {"type": "shell", "environment": {"type": "local", "skills": []}},
    {"type": "apply_patch"},
    {"type": "computer"},
    {"type": "computer_use_preview", "display_width": 1024, "display_height": 768, "environment": "browser"},
    {"type": "computer_20250124", "name": "computer", "display_width_px": 1, "display_height_px": 1},
    {"type": "computer_toolset_20260801", "configs": {"zoom": {"enabled": True}}},
    {"type": "browser_toolset_20260801"},
    {"type": "bash_20241022", "name": "bash"},
    {"type": "bash_20250124", "name": "bash"},
    {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 10_000},
    {"type": "memory_20250818", "name": "memory"},
    {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
    {"type": "tool_search_tool_bm25", "name": "tool_search_tool_bm25"},
    {"type": "tool_search", "execution": "client", "description": "d", "parameters": _SCHEMA},
    {"type": "namespace", "name": "crm", "description": "d", "tools": [{"type": "function", "name": "f"}]},
    {"type": "namespace", "name": "crm", "tools": [{"type": "custom", "name": "f"}, {"type": "function", "name": "g"}]},
    {"type": "namespace", "name": "empty"},
]
# Hosted ones, with the price line that sells them; "" where none can.
HOSTED: list[tuple[Any, str]] = [
    ({"type": "web_search"}, "web_search"),
    ({"type": "web_search", "external_web_access": False, "search_content_types": ["text"]}, "web_search"),
    ({"type": "web_search_2025_08_26"}, "web_search"),
    ({"type": "web_search_preview"}, "web_search"),
    ({"type": "web_search_preview_2025_03_11"}, "web_search"),
    ({"type": "web_search_20250305", "name": "web_search", "max_uses": 5}, "web_search"),
    ({"type": "web_search_20260318", "name": "web_search"}, "web_search"),
    ({"type": "web_fetch_20250910", "name": "web_fetch"}, "web_fetch"),
    ({"type": "openrouter:web_search"}, "web_search"),
    ({"type": "openrouter:web_fetch", "parameters": {}}, "web_fetch"),
    ({"type": "openrouter:datetime"}, ""),
    ({"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "64g"}}, "code_execution"),
    ({"type": "code_execution_20250825", "name": "code_execution"}, "code_execution"),
    ({"type": "shell", "environment": {"type": "container_auto"}}, "code_execution"),
    ({"type": "shell", "environment": {"type": "container_reference", "container_id": "c"}}, "code_execution"),
    ({"type": "computer", "environment": {"type": "container_auto"}}, "code_execution"),
    ({"type": "computer_20250124", "name": "computer", "container": "c"}, "code_execution"),
    ({"type": "file_search", "vector_store_ids": ["vs_of_somebody"]}, "file_search"),
    ({"type": "function", "function": {"name": "f"}, "vector_store_ids": ["vs"]}, "file_search"),
    ({"name": "f", "vector_store_ids": ["vs"]}, "file_search"),
    ({"type": "image_generation", "quality": "high"}, "image_generation"),
    ({"type": "mcp", "server_label": "x", "server_url": "https://x"}, "mcp_call"),
    ({"type": "mcp_toolset", "mcp_server_name": "x"}, "mcp_call"),
    ({"type": "url", "url": "https://x", "name": "x"}, ""),
    ({"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5"}, ""),
    ({"type": "programmatic_tool_calling"}, ""),
    ({"type": "x_search"}, ""),
    ({"type": "web_search_premium"}, ""),
    ({"type": "bash_code_execution_20250825", "name": "bash"}, ""),
    ({"type": "text_editor_code_execution", "name": "x"}, ""),
    ({"type": "web_search_20250305 ", "name": "web_search"}, ""),
    ({"type": "Web_Search"}, ""),
    ({"type": "FUNCTION", "function": {"name": "f"}}, ""),
    ({"type": 7, "name": "x"}, ""),
    ({"type": ["web_search"], "name": "x"}, ""),
    ({"type": "function"}, ""),
    ({"type": "function", "googleSearch": {}}, ""),
    ({"type": "custom", "google_search": {}}, ""),
    ({"type": "local_shell", "googleSearch": {}}, ""),
    ({"type": "bash_20250124", "codeExecution": {}}, ""),
    ({"googleSearch": {}}, "web_search"),
    ({"google_search": {}}, "web_search"),
    ({"googleSearchRetrieval": {"dynamicRetrievalConfig": {}}}, "web_search"),
    ({"url_context": {}}, "web_fetch"),
    ({"urlContext": {}}, "web_fetch"),
    ({"codeExecution": {}}, "code_execution"),
    ({"code_execution": {}}, "code_execution"),
    ({"enterpriseWebSearch": {}}, ""),
    ({"googleMaps": {}}, ""),
    ({"retrieval": {}}, ""),
    ({"Type": "web_search"}, ""),
    ({"type": None, "googleSearch": {}}, ""),
    ({"type": "namespace", "name": "n", "tools": [{"type": "custom", "name": "f"}, {"type": "mcp"}]}, "mcp_call"),
    ({"type": "namespace", "name": "n", "tools": {"googleSearch": {}}}, "web_search"),
    ({"type": "namespace", "name": "n", "tools": [{"type": "namespace", "name": "m", "tools": []}]}, ""),
    ("web_search", "web_search"),
    ("nonsense", ""),
    ([{"type": "web_search"}], ""),
]  # fmt: skip
# Neither: the provider judges them.
ODD_ENTRIES: list[Any] = [None, 7, 1.5, True, "", [], {}]
ODD_LISTS: list[Any] = [None, [], {}, 7, False, "", [None], [{}, 7, ""]]

FIELDS: list[tuple[str, Any, str]] = [
    ("web_search_options", {}, "web_search"),
    ("web_search_options", {"search_context_size": "high"}, "web_search"),
    ("plugins", [{"id": "web", "max_results": 3}], "web_search"),
    ("search_parameters", {"mode": "on"}, "web_search"),
    ("enable_search", True, "web_search"),
    ("mcp_servers", [{"type": "url", "url": "https://x", "name": "x"}], "mcp_call"),
    ("container", "container_of_somebody", "code_execution"),
    ("container", {"skills": []}, "code_execution"),
    ("audio", {"voice": "alloy", "format": "wav"}, "audio_output"),
    ("modalities", ["text", "audio"], "audio_output"),
    ("modalities", ["AUDIO"], "audio_output"),
    ("modalities", ["image", "text"], "image_generation"),
    ("modalities", "audio", "audio_output"),
    ("modalities", ["video"], ""),
    ("modalities", [7], ""),
    ("vector_store_ids", ["vs_of_somebody"], "file_search"),
    ("connectors", [{"id": "web-search"}], ""),
    ("data_sources", [{"type": "azure_search"}], ""),
]  # fmt: skip
ABSENT_FIELDS = [
    ("web_search_options", None), ("plugins", []), ("plugins", None), ("mcp_servers", []), ("container", None),
    ("modalities", ["text"]), ("modalities", []), ("audio", None), ("enable_search", False),
]  # fmt: skip


def request(schema: type[RequestSchema] = Chat, /, **fields: Any) -> ParsedRequest:
    return parse(json.dumps({**_INPUTS[schema], **fields}).encode(), schema)


def sold_request(
    found: ParsedRequest, sold: tuple[str, ...] = (), headers: dict[bytes, bytes] | None = None
) -> ParsedRequest:
    return found.with_sold_tools(sold=sold, added=added_by_agent(headers or {}), model="some-model")


def sent(found: ParsedRequest) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(b"{" + upstream_tail(found, max_tokens=10, temperature=None))
    return body


@pytest.mark.parametrize("schema", SURFACES)
@pytest.mark.parametrize("tool", OWN, ids=json.dumps)
def test_tools_of_the_callers_program_pass(schema: type[RequestSchema], tool: Any) -> None:
    found = request(schema, tools=[tool, tool])
    assert found.hosted == ()
    assert sent(found)["tools"] == [tool, tool]


@pytest.mark.parametrize(("tool", "unit"), HOSTED, ids=json.dumps)
def test_hosted_tools_are_refused_without_a_price_line_and_pass_with_it(tool: Any, unit: str) -> None:
    for schema in SURFACES:
        found = request(schema, tools=[OWN[0], tool])
        with pytest.raises(ToolNotSold) as refused:
            sold_request(found, tuple(each for each in UNITS if each != unit))
        assert (refused.value.param or "").startswith("tools[1]")
        if unit:
            passed = sold_request(found, (unit,))
            assert sent(passed)["tools"] == [OWN[0], tool]
            assert passed.dropped == ()
            assert units_held(passed.hosted).keys() == {unit}


@pytest.mark.parametrize("tool", [tool for tool, _unit in HOSTED], ids=json.dumps)
def test_one_tool_in_place_of_a_list_is_read_as_well(tool: Any) -> None:
    for name in ("tools", "functions"):
        with pytest.raises(ToolNotSold):
            sold_request(request(**{name: tool}))
        with pytest.raises(ToolNotSold):
            sold_request(request(**{name: [tool]}))


def test_functions_of_the_old_form_pass() -> None:
    functions = [{"name": "f", "parameters": _SCHEMA}, {"name": "g"}]
    found = request(functions=functions, function_call="auto")
    assert found.hosted == ()
    assert sent(found)["functions"] == functions


@pytest.mark.parametrize("tools", [*ODD_LISTS, *([entry] for entry in ODD_ENTRIES)], ids=json.dumps)
def test_what_cannot_be_a_hosted_tool_is_left_to_the_provider(tools: Any) -> None:
    found = request(tools=tools)
    assert found.hosted == ()
    assert sent(found)["tools"] == tools


_types = st.text(max_size=30) | st.sampled_from(
    ["web_search_preview_2026_01_01", "web_search_20990101", "mcp", "hosted_shell", "bash", "functions", "shell_2"]
)  # fmt: skip
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)
_OWN_TYPES = {tool["type"] for tool in OWN if tool.get("type")}


@given(kind=_types, more=st.dictionaries(st.text(max_size=12), _json, max_size=4), schema=st.sampled_from(SURFACES))
def test_no_tool_of_an_unknown_type_goes_upstream(kind: str, more: dict[str, Any], schema: type[RequestSchema]) -> None:
    tool = {**more, "type": kind}
    if kind in _OWN_TYPES:
        return
    with pytest.raises(ToolNotSold):
        sold_request(request(schema, tools=[tool]))


@given(tools=_json, schema=st.sampled_from(SURFACES))
def test_any_tools_are_read_and_what_is_sold_passes_unchanged(tools: Any, schema: type[RequestSchema]) -> None:
    found = request(schema, tools=tools)
    if not found.hosted:
        assert sent(found)["tools"] == tools
    with contextlib.suppress(ToolNotSold):
        assert sent(sold_request(found, UNITS))["tools"] == tools


def test_untouched_tools_keep_their_bytes() -> None:
    own = b'{ "type" : "function","name":"f", "x": 1.0e2 }'
    body = b'{"input":"hi","tools":[%b ,{"type":"web_search"}, %b]}' % (own, own)
    tail = upstream_tail(sold_request(parse(body, Responses), headers=CODEX), max_tokens=5, temperature=None)
    assert b'"tools":[%b,%b]' % (own, own) in tail


@pytest.mark.parametrize(("name", "value", "unit"), FIELDS)
def test_fields_that_choose_a_hosted_tool_need_its_price_line(name: str, value: Any, unit: str) -> None:
    for schema in SURFACES:
        found = request(schema, **{name: value})
        with pytest.raises(ToolNotSold) as refused:
            sold_request(found, tuple(each for each in UNITS if each != unit), CODEX)
        assert (refused.value.param or "").startswith(name)
        if unit:
            assert sent(sold_request(found, (unit,)))[name] == value


@pytest.mark.parametrize(("name", "value"), ABSENT_FIELDS)
def test_fields_that_choose_nothing_pass(name: str, value: Any) -> None:
    assert request(**{name: value}).hosted == ()
    assert parse(b'{"messages":[{"role":"user","content":"x"}],"mcp_servers": [ ]}', Chat).hosted == ()


@pytest.mark.parametrize("schema", SURFACES)
def test_a_models_name_that_searches_needs_the_price_line(schema: type[RequestSchema]) -> None:
    found = request(schema, model="openai/gpt-6.1-sol:online")
    with pytest.raises(ToolNotSold):
        sold_request(found)
    with pytest.raises(ToolNotSold):  # an alias leads to a model that does not search
        sold_request(found, ("web_search",))
    passed = found.with_sold_tools(sold=("web_search",), added=(), model="openai/gpt-6.1-sol:online")
    assert units_held(passed.hosted) == {"web_search": 1}
    assert request(schema, model="openai/gpt-6.1-sol:free").hosted == ()
    assert request(schema, model="online").hosted == ()


@pytest.mark.parametrize(
    ("field", "items"),
    [
        ("input", [{"type": "additional_tools", "role": "developer", "tools": [OWN[2], {"type": "web_search"}]}]),
        ("input", [{"type": "tool_search_output", "call_id": "c", "tools": [OWN[2], {"type": "web_search"}]}]),
        ("messages", [{"role": "user", "content": [
            {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {
                "type": "web_search_20250305", "name": "web_search"}}},
        ]}]),
    ],
)  # fmt: skip
def test_tools_that_the_conversation_declares_are_read(field: str, items: list[Any]) -> None:
    schema: type[RequestSchema] = Responses if field == "input" else Messages
    body = json.dumps({field: items}).encode()
    for spelled in (body, body.replace(b"additional_", b"additional\\u005f").replace(b"tool_", b"\\u0074ool_")):
        found = parse(spelled, schema)
        with pytest.raises(ToolNotSold) as refused:
            sold_request(found)
        assert (refused.value.param or "").startswith(f"{field}[0].")
        assert sent(sold_request(found, ("web_search",)))[field] == items


def test_what_an_agent_adds_to_the_conversation_is_dropped_there() -> None:
    items = [
        {"type": "additional_tools", "tools": [OWN[2], {"type": "web_search"}]},
        {"role": "user", "content": "hi"},
    ]
    found = sold_request(request(Responses, input=items), headers=CODEX)
    assert sent(found)["input"] == [{"type": "additional_tools", "tools": [OWN[2]]}, items[1]]
    assert found.dropped == ("web_search",)


def test_a_history_with_hosted_calls_passes() -> None:
    blocks = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "rain"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}},
    ]
    assert request(Messages, messages=[{"role": "assistant", "content": blocks}, *_USER]).hosted == ()
    items = [
        {"type": "web_search_call", "id": "w", "action": {"type": "search"}},
        {"type": "mcp_list_tools", "tools": [{"name": "x", "input_schema": {}}]},
        {"type": "tool_search_output", "tools": [OWN[2]]},
    ]
    assert request(Responses, input=items).hosted == ()


def test_what_codex_adds_by_itself_is_dropped_and_named() -> None:
    tools = [OWN[2], {"type": "web_search", "external_web_access": True}, {"type": "image_generation"}, OWN[11]]
    found = sold_request(request(Responses, tools=tools, tool_choice="auto"), headers=CODEX)
    assert sent(found)["tools"] == [OWN[2], OWN[11]]
    assert sent(found)["tool_choice"] == "auto"
    assert found.dropped == ("web_search", "image_generation")
    assert units_held(found.hosted) == {}
    some = sold_request(request(Responses, tools=tools), ("web_search",), CODEX)
    assert sent(some)["tools"] == [OWN[2], tools[1], OWN[11]]
    assert some.dropped == ("image_generation",)


def test_without_any_tool_nothing_is_said_of_tools() -> None:
    fields = {"tools": [{"type": "web_search"}], "tool_choice": "auto", "parallel_tool_calls": True}
    found = sent(sold_request(request(Responses, **fields), headers=CODEX))
    assert found.keys().isdisjoint(fields)


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "web_search"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]},
    ],
)
def test_what_tool_choice_names_is_refused_also_of_codex(choice: Any) -> None:
    with pytest.raises(ToolNotSold):
        sold_request(request(Responses, tools=[OWN[2], {"type": "web_search"}], tool_choice=choice), headers=CODEX)


@pytest.mark.parametrize("kind", ["mcp", "file_search", "code_interpreter", "web_search_preview"])
def test_other_hosted_tools_of_codex_were_chosen_by_its_user(kind: str) -> None:
    with pytest.raises(ToolNotSold):
        sold_request(request(Responses, tools=[OWN[2], {"type": kind}]), headers=CODEX)


@pytest.mark.parametrize(
    ("headers", "is_codex"),
    [
        (CODEX, True),
        ({b"user-agent": b"codex-tui/0.171.0 (Mac OS 15; arm64) ghostty"}, True),
        ({b"user-agent": b"codex_exec/0.171.0"}, True),
        ({b"originator": b"Codex Desktop", b"user-agent": b"Mozilla/5.0"}, True),
        ({b"originator": b"codex_vscode"}, True),
        ({b"user-agent": b"xcode/1.0 (Mac OS 15)", b"x-codex-turn-metadata": b"{}"}, True),
        ({b"user-agent": b"CodexFlow/1.0"}, False),
        ({b"user-agent": b"OpenAI/Python 3.52.0"}, False),
        ({b"user-agent": b"claude-cli/2.1.332 (external, cli)"}, False),
        ({}, False),
    ],
)  # fmt: skip
def test_codex_is_known_by_its_headers(headers: dict[bytes, bytes], is_codex: bool) -> None:
    assert bool(added_by_agent(headers)) == is_codex


def test_the_error_names_the_tool_its_place_the_model_and_what_is_sold() -> None:
    tools = [OWN[0], {"type": "web_search_20250305", "name": "web_search"}]
    with pytest.raises(ToolNotSold) as refused:
        sold_request(request(Messages, tools=tools), ("web_fetch", "code_execution"))
    assert (refused.value.code, refused.value.status, refused.value.param) == ("tool_not_sold", 400, "tools[1]")
    for text in ("web_search_20250305", "some-model", "Remove it", "Sold for this model: code_execution, web_fetch."):
        assert text in refused.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [("service_tier", "priority"), ("serviceTier", "flex"), ("speed", "fast"), ("inference_geo", "us")],
)
def test_dearer_service_is_dropped_and_named(name: str, value: str) -> None:
    for schema in SURFACES:
        found = sold_request(request(schema, **{name: value}))
        assert found.dropped == (name,)
        assert name not in sent(found)


@pytest.mark.parametrize("value", ["auto", "default", "standard_only", "standard", None])
def test_the_usual_service_is_not_named(value: str | None) -> None:
    found = request(service_tier=value, speed=value)
    assert found.hosted == ()
    assert sent(found).keys().isdisjoint({"service_tier", "speed"})


def test_other_plugins_are_dropped_and_named() -> None:
    web = {"id": "web", "max_results": 3}
    found = sold_request(request(plugins=[{"id": "file-parser"}, web, "x"]), ("web_search",))
    assert sent(found)["plugins"] == [web]
    assert found.dropped == ("plugins",)
    off = sold_request(request(plugins=[{"id": "web", "enabled": False}]))
    assert "plugins" not in sent(off)
    assert sold_request(request(plugins={"id": "web"})).dropped == ("plugins",)


def test_uses_are_held_as_far_as_they_are_known() -> None:
    def held(**fields: Any) -> dict[str, int]:
        return units_held(sold_request(request(Responses, **fields), UNITS).hosted)

    search: dict[str, Any] = {"type": "web_search_20250305", "name": "web_search"}
    assert held(tools=[search]) == {"web_search": DEFAULT_USES}
    assert held(tools=[{**search, "max_uses": 3}]) == {"web_search": 3}
    assert held(tools=[{**search, "max_uses": 3}, {**search, "max_uses": 4}]) == {"web_search": 7}
    for odd in (0, -1, "3", True, 1.5, None, 10**30):
        assert held(tools=[{**search, "max_uses": odd}]) == {"web_search": DEFAULT_USES}
    assert held(tools=[{"type": "web_search"}, {"type": "mcp"}]) == dict.fromkeys(
        ("web_search", "mcp_call"), DEFAULT_USES
    )


def test_what_is_held_is_in_the_size_of_the_call() -> None:
    found = sold_request(request(tools=[{"type": "web_search_20250305", "name": "x", "max_uses": 4}]), UNITS)
    assert found.size(10).units == {"web_search": 4}
    assert request(tools=[OWN[0]]).size(10).units is None


def test_images_are_sold_by_the_piece_or_by_the_token_and_not_by_both() -> None:
    found = request(modalities=["text", "image"])
    for sold, units in (
        (("image_generation",), {"image_generation"}),
        (("image_output",), set()),
        (PARTS + UNITS, set()),
    ):
        passed = sold_request(found, sold)
        assert units_held(passed.hosted).keys() == units
        assert bool(least_units(passed.hosted)) == bool(units)


def test_every_unit_of_the_catalogue_sells_a_tool() -> None:
    assert {unit for _tool, unit in HOSTED if unit} == set(TOOL_UNITS)


def test_fields_that_search_in_every_call_count_once_at_least() -> None:
    found = sold_request(request(web_search_options={}, plugins=[{"id": "web"}]), UNITS)
    assert least_units(found.hosted) == {"web_search": 1}
    assert least_units(sold_request(request(tools=[{"type": "web_search"}]), UNITS).hosted) is None


def test_counting_tokens_costs_nothing_so_all_tools_pass() -> None:
    tools = [tool for tool, _unit in HOSTED]
    found = request(CountTokens, tools=tools, mcp_servers=[{"type": "url"}])
    assert found.hosted == ()
    assert sent(found)["tools"] == tools


@pytest.mark.parametrize("text", [b'["\\ud800"]', b'[{"type":"\\ud800"}]', b'[{"\\ud800":1}]', b'{"a\\ud800":1}'])
def test_half_a_surrogate_does_not_hide_a_tool(text: bytes) -> None:
    with pytest.raises((ToolNotSold, InvalidJson, InvalidRequestBody)):
        sold_request(parse(b'{"input":"hi","tools":%b}' % text, Responses))


@pytest.mark.parametrize("depth", [100, 900, 5_000])
def test_deep_nesting_is_read_or_refused(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    for text in (deep, b'[{"type":"function","name":"f","x":%b}]' % deep, b'[{"type":"web_search","x":%b}]' % deep):
        try:
            found = parse(b'{"input":"hi","tools":%b}' % text, Responses)
            sold_request(found)
        except (ToolNotSold, InvalidJson, InvalidRequestBody):
            continue
        assert b"web_search" not in text
