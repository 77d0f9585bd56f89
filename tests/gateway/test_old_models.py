"""Models by name over HTTP: replaced and retired ones, the guide's own file, and what each model takes."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from codexflow.catalogue.lineup import lineup_of
from codexflow.catalogue.schema import STAGES, parse
from codexflow.catalogue.tests.test_old_models import SUCCESSORS, TODAY
from codexflow.env import REPOSITORY
from keys.tests.factories import a_key
from tests.support.installation import Gateway, Installation, models_text
from tests.support.upstream import Upstream, running_upstream
from tests.support.waiting import until

GUIDE = (REPOSITORY / "tests" / "support" / "guide" / "models.yaml").read_text()
SHIPPED = parse(models_text(), source="models.yaml")
CHAINS = lineup_of(SHIPPED, TODAY).stages


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


@pytest.fixture
def guide(running: Installation) -> Iterator[Installation]:
    """The guide's models.yaml, byte for byte."""
    with running.configured(GUIDE):
        yield running


def sent(upstream: Upstream, response: httpx.Response, n: int = 1) -> dict[str, Any]:
    """Return the body that the upstream received with the nth attempt."""
    (entry,) = upstream.ledger(call_id=f"{response.headers['x-cfx-request-id']}.{n}", wait=1)
    body: dict[str, Any] = json.loads(entry["body"])
    return body


def served(response: httpx.Response) -> tuple[str, str, str]:
    assert response.status_code == 200, response.text
    headers = response.headers
    return headers["x-cfx-stage"], headers["x-cfx-stage-reason"], headers["x-cfx-model"]


@pytest.mark.cut(4)
@pytest.mark.parametrize("header", [{}, {"X-CFX-Stage": "direct"}], ids=["model", "header"])
@pytest.mark.parametrize(("name", "successor"), SUCCESSORS.items())
def test_an_old_name_is_served_by_its_successor(
    running: Installation, key: str, name: str, successor: str, header: dict[str, str]
) -> None:
    response = running.post(key, model=name, headers=header, temperature=0.2, top_p=0.9)
    assert served(response) == ("direct", "successor", successor)
    body = sent(running.upstream, response)
    assert body["model"] == successor
    assert ("temperature" in body) is ("temperature" in SHIPPED.entries[successor].takes)
    row = running.row_of(response)
    prices = SHIPPED.prices[successor]
    assert (row.requested_model, row.model, row.stage_reason) == (name, successor, "successor")
    assert (row.rate_input_nanos, row.rate_output_nanos) == (prices.input_nanos, prices.output_nanos)


def test_an_old_name_works_on_every_surface(running: Installation, key: str) -> None:
    for path, body in (
        ("/v1/responses", {"input": "hi", "model": "gpt-4o"}),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "model": "claude-haiku-3.5"},
        ),
        ("/v1/completions", {"prompt": "hi", "model": "gpt-4o-mini"}),
    ):
        assert served(running.ask(key, path, temperature=0, **body))[1] == "successor"


def test_the_guides_own_file_runs(guide: Installation, key: str) -> None:
    stages = {"plan": "claude-sonnet-5.5", "code": "deepseek-v4.1-flash", "review": "gpt-6-luna"}
    for stage, model in stages.items():
        response = guide.post(key, headers={"X-CFX-Stage": stage}, temperature=0.3)
        assert served(response) == (stage, "header", model)
    assert served(guide.post(key, model="gpt-4o")) == ("direct", "successor", "gpt-6.1-sol")
    assert served(guide.post(key, model="gpt-6.1-sol")) == ("direct", "model", "gpt-6.1-sol")
    details = guide.health()["details"]
    assert not details["models_unknown_to_litellm"]
    ends = {end["model"]: end for end in details["model_ends"]}
    assert ends.keys() == SUCCESSORS.keys()
    assert ends["claude-sonnet-4.5"]["used_by"][:2] == ["stage plan", "direct"]


@pytest.fixture
def old_litellm(guide: Installation) -> Iterator[tuple[Gateway, Upstream]]:
    """A gateway with the guide's models.yaml over a LiteLLM with the guide's models."""
    names = re.findall(r"model_name: (\S+)", (REPOSITORY / "tests" / "support" / "guide" / "litellm.yaml").read_text())
    assert len(names) == 6
    with running_upstream(models=names) as upstream:
        gateway = guide.new_gateway(LITELLM_URL=upstream.url, LITELLM_API_KEY=upstream.api_key)
        yield gateway, upstream
        gateway.stop()


def test_without_the_successor_in_litellm_the_named_model_is_tried(
    guide: Installation, old_litellm: tuple[Gateway, Upstream], key: str
) -> None:
    gateway, upstream = old_litellm
    response = guide.post(key, url=gateway.url, headers={"X-CFX-Stage": "plan"})
    assert served(response) == ("plan", "header", "claude-sonnet-4.5")
    assert sent(upstream, response)["temperature"] == 0.3
    for _ in range(2):
        assert served(guide.post(key, url=gateway.url, model="gpt-4o", temperature=0.7)) == (
            "direct",
            "model",
            "gpt-4o",
        )
    details = guide.health(gateway.url)["details"]
    assert details["successors_not_listed"]["gpt-4o"] == "gpt-6.1-sol"
    assert details["models_unknown_to_litellm"] == ["claude-haiku-3.5"]
    log = gateway.log.read_text()
    assert sum("catalogue.successor_not_listed" in line and '"gpt-4o"' in line for line in log.splitlines()) == 1
    listed = httpx.get(f"{gateway.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).json()
    names = {model["id"] for model in listed["data"]}
    assert "gpt-4o" in names
    assert "gpt-6.1-sol" not in names


def test_models_lists_old_names_and_what_a_name_takes(running: Installation, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    listed = httpx.get(f"{running.url}/v1/models", headers=headers).json()["data"]
    models = {model["id"]: model for model in listed}
    assert models.keys() >= {*SUCCESSORS, *SHIPPED.direct.allowed_models, "text-embedding-3-small"}
    for name in ("gpt-6-luna", "gpt-4o-mini"):
        shown = httpx.get(f"{running.url}/v1/models/{name}", headers=headers).json()
        assert shown == models[name]
        assert (shown["context_window"], shown["max_output_tokens"]) == (922_000, 32_768)
        assert shown["takes"] == ["reasoning", "images", "tools"]
    codex = httpx.get(f"{running.url}/v1/models?client_version=1", headers=headers).json()["models"]
    windows = {model["slug"]: model["context_window"] for model in codex}
    # The smallest of the stage's chain.
    assert (windows["cfx-code"], windows["gemini-3.8-flash"]) == (922_000, 1_048_576)


def test_a_key_restricted_to_an_old_name_goes_on_working(running: Installation) -> None:
    old = a_key(allowed_models=("claude-haiku-3.5",)).plain
    assert served(running.post(old, model="claude-haiku-3.5"))[2] == "claude-haiku-5.5"
    assert served(running.post(old, model="claude-haiku-5.5"))[2] == "claude-haiku-5.5"
    assert running.post(old, model="gpt-4o").status_code == 403
    new = a_key(allowed_models=("claude-haiku-5.5",)).plain
    assert served(running.post(new, model="claude-haiku-3.5"))[2] == "claude-haiku-5.5"


def test_a_retired_model_is_a_404_that_names_others(running: Installation, key: str) -> None:
    ended = {
        r"(?m)^  gemini-3.8-flash:.*$": "  gemini-3.8-flash:\n    retires: 2026-11-01",
        r"(?m)^  claude-sonnet-5.5:$": "  claude-sonnet-5.5:\n    retires: 2026-11-01",
    }
    with running.configured(**ended):
        for path, body in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
            ("/v1/responses", {"input": "hi"}),
            ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}),
        ):
            # The successor of an old name can be over, too.
            for name in ("gemini-3.8-flash", "gemini-2.5-pro"):
                response = running.ask(key, path, model=name, **body)
                error = response.json()["error"]
                assert (response.status_code, error["code"]) == (404, "model_retired")
                assert "since 2026-11-02" in error["message"]
                assert "gpt-6-luna" in error["message"]
                assert "claude-sonnet-5.5" not in error["message"]
        assert served(running.post(key, model="cfx-plan"))[2] == "gpt-6.1-sol"
        health = running.health()
        assert health["status"] == "degraded"
        assert health["details"]["config_problems"] == [
            "stages.plan.model: claude-sonnet-5.5 ended on 2026-11-01 and has no successor"
        ]
        listed = httpx.get(f"{running.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).json()["data"]
        assert not {"gemini-3.8-flash", "gemini-2.5-pro"} & {model["id"] for model in listed}
    until(lambda: running.health()["status"] == "healthy", what="health")


@pytest.mark.cut(5)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("own", [{}, {"temperature": 0.7, "top_p": 0.5, "presence_penalty": 1}], ids=["stage", "own"])
def test_every_model_of_a_stage_gets_what_it_takes(
    running: Installation, key: str, stage: str, place: int, own: dict[str, Any]
) -> None:
    """The upstream answers 400 to what the vendor refuses, as the vendor does."""
    chain = CHAINS[stage]
    failing = f"[[fault:models={','.join(chain[:place])} 500]]" if place else "Hello"
    response = running.say(key, failing, model=f"cfx-{stage}", **own)
    assert served(response)[2] == chain[place]
    body = sent(running.upstream, response, n=place + (2 if place else 1))
    if "temperature" in SHIPPED.entries[chain[place]].takes:
        assert body["temperature"] == own.get("temperature", SHIPPED.stages[stage].temperature)
        assert "x-cfx-dropped" not in response.headers
    else:
        assert not {"temperature", "top_p", "presence_penalty"} & body.keys()
        assert response.headers.get("x-cfx-dropped", "") == ", ".join(sorted(own))


@pytest.mark.cut(4)
@pytest.mark.parametrize("name", SHIPPED.direct.allowed_models)
def test_every_model_serves_with_defaults_when_it_is_named(running: Installation, key: str, name: str) -> None:
    assert served(running.post(key, model=name)) == ("direct", "model", name)


def test_a_named_model_gets_the_callers_parameters_as_they_are(running: Installation, key: str) -> None:
    """The caller asked for this model, and learns what it refuses."""
    response = running.post(key, model="gpt-6-luna", temperature=0.2)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "temperature")
    # An agent's name is nobody's choice of a model.
    assert served(running.post(key, model="claude-opus-5-5", temperature=0.2))[1] == "alias"


def test_the_output_is_bounded_by_what_a_model_can_write(running: Installation, key: str) -> None:
    with running.configured(**{r"max_output: 65536": "max_output: 1000"}):
        response = running.say(key, "[[fault:models=deepseek-v4.1-flash,gpt-6-luna 500]]", model="cfx-code")
        assert served(response)[2] == "gemini-3.5-flash-lite"
        bounds = [sent(running.upstream, response, n)["max_tokens"] for n in (1, 3, 4)]
        assert bounds == [32_768, 32_768, 1_000]


def test_a_fallback_that_takes_no_images_or_tools_is_not_tried(running: Installation, key: str) -> None:
    blind = {r"(?s)(\n  gpt-6-luna:.*?takes: )\[reasoning, images, tools\]": r"\1[reasoning]"}
    fault = "[[fault:models=deepseek-v4.1-flash 500]]"
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    with running.configured(**blind):
        plain = running.say(key, fault, model="cfx-code")
        seen = running.post(
            key, model="cfx-code", messages=[{"role": "user", "content": [{"type": "text", "text": fault}, image]}]
        )
        used = running.say(key, fault, model="cfx-code", tools=[tool])
        assert [served(each)[2] for each in (plain, seen, used)] == [
            "gpt-6-luna", "gemini-3.5-flash-lite", "gemini-3.5-flash-lite",
        ]  # fmt: skip


def test_a_model_may_be_silent_for_longer_than_its_stage_waits(running: Installation, key: str) -> None:
    """Before its first byte and inside its stream: the stage waits 2 s, a stream 2 s between events."""
    patient = {r"(?s)(\n  gpt-6-luna:.*?silence: )\d+": r"\g<1>20"}
    with running.configured(**patient):
        for fault in ("slow first_ms=2500", "slow gap_ms=2500"):
            response = running.say(key, f"[[fault:{fault}]] [[say:a]]", model="cfx-review", stream=True)
            assert served(response)[2] == "gpt-6-luna"
            assert response.text.rstrip().endswith("data: [DONE]"), response.text
