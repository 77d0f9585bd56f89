"""Claude Code's contract with a gateway, row by row: what it sends, probes and reads, seen over HTTP.

The rows are those of Anthropic's gateway protocol and of the program itself, which `make clients` installs.
"""

import re
from typing import Any

import httpx
import pytest

from keys.tests.factories import a_key
from logs.models import UpstreamAttempt
from tests.gateway.test_surfaces import STREAMING, SurfaceCase
from tests.support.installation import Installation

BETAS = "claude-code-20250219,interleaved-thinking-2025-05-14, context-1m-2025-08-07;x=1"
VERSION = "2023-06-01"
# As the picker filters.
SHOWN = re.compile("claude|anthropic", re.IGNORECASE)
STAGES = ("plan", "code", "review")
MESSAGE: dict[str, Any] = {
    "model": "claude-cfx-code",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello"}],
}
CASES = [case for case in STREAMING if "?" not in case.path and case.path != "/chat/completions"]


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def received(running: Installation, response: httpx.Response) -> dict[str, Any]:
    """Return what the upstream recorded of the call's first attempt."""
    assert response.status_code == 200, response.text
    (entry,) = running.upstream.ledger(call_id=f"{response.headers['x-cfx-request-id']}.1", wait=1)
    return entry


def discovered(running: Installation, key: str, path: str = "/v1/models?limit=1000") -> httpx.Response:
    """Ask for the models as Claude Code does: both credentials, no redirect followed."""
    headers = {"Authorization": f"Bearer {key}", "x-api-key": key, "anthropic-version": VERSION}
    return httpx.get(running.url + path, headers=headers, follow_redirects=False, timeout=3)


class TestHeaders:
    @pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages?beta=true", "/v1/messages/count_tokens?beta=true"])
    def test_they_reach_the_provider_byte_for_byte(self, running: Installation, key: str, path: str) -> None:
        headers = {"anthropic-version": VERSION, "anthropic-beta": BETAS}
        response = running.ask(key, path, headers=headers, **MESSAGE)
        assert response.status_code == 200, response.text
        (entry,) = running.upstream.ledger(call_id=f"{response.headers['x-cfx-request-id']}.1", wait=1)
        assert entry["path"] == path.partition("?")[0]
        assert entry["anthropic_headers"] == headers

    def test_several_lines_are_joined_in_order(self, running: Installation, key: str) -> None:
        lines = [("anthropic-beta", "b-2"), ("x-other", "1"), ("Anthropic-Beta", "a-1,c-3"), ("ANTHROPIC-BETA", "b-2")]
        headers = [("Authorization", f"Bearer {key}"), ("anthropic-version", VERSION), *lines]
        response = httpx.post(f"{running.url}/v1/messages?beta=true", json=MESSAGE, headers=headers, timeout=30)
        sent = received(running, response)["anthropic_headers"]
        assert sent == {"anthropic-version": VERSION, "anthropic-beta": "b-2, a-1,c-3, b-2"}

    def test_every_attempt_gets_them(self, running: Installation, key: str) -> None:
        running.upstream.set_fault("503", model="deepseek-v4.1-flash")
        headers = {"anthropic-version": VERSION, "anthropic-beta": BETAS}
        response = running.ask(key, "/v1/messages?beta=true", headers=headers, **MESSAGE)
        assert response.headers["x-cfx-model"] == "gpt-6-luna"
        request_id = running.row_of(response).request_id
        made = UpstreamAttempt.objects.filter(request_id=request_id).values_list("n", flat=True)
        entries = [entry for n in made for entry in running.upstream.ledger(call_id=f"{request_id}.{n}", wait=1)]
        assert len(entries) == len(made) >= 2
        assert all(entry["anthropic_headers"] == headers for entry in entries)

    def test_none_are_made_up(self, running: Installation, key: str) -> None:
        assert received(running, running.ask(key, "/v1/messages", **MESSAGE))["anthropic_headers"] == {}


class TestProbes:
    @pytest.mark.parametrize("path", ["/", "/api/hello"])
    @pytest.mark.parametrize("host", ["", "api.codexflow.example"])
    def test_the_base_url_answers_on_any_host_without_a_key(self, running: Installation, path: str, host: str) -> None:
        response = httpx.head(running.url + path, headers={"host": host} if host else {}, follow_redirects=False)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["x-cfx-request-id"]

    def test_pages_are_served_as_before(self, running: Installation) -> None:
        assert httpx.get(f"{running.url}/").status_code == 200
        assert httpx.head(f"{running.url}/docs/").status_code == 200


class TestCountTokens:
    PATH = "/v1/messages/count_tokens?beta=true"

    def test_it_has_a_limit_of_its_own_and_takes_nothing_of_the_calls(self, running: Installation) -> None:
        key = a_key(rpm=2).plain
        assert [running.ask(key, self.PATH, **MESSAGE).status_code for _ in range(3)].count(200) >= 2
        # Not a question of this minute: the calls have their own count.
        assert running.ask(key, "/v1/messages?beta=true", **MESSAGE).status_code == 200


class TestDiscovery:
    def test_the_list_has_anthropics_shape(self, running: Installation, key: str) -> None:
        response = discovered(running, key)
        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        listed = response.json()
        ids = [model["id"] for model in listed["data"]]
        assert set(listed) == {"data", "has_more", "first_id", "last_id"}
        assert (listed["first_id"], listed["last_id"], listed["has_more"]) == (ids[0], ids[-1], False)
        for model in listed["data"]:
            assert {"type", "id", "display_name", "created_at"} <= set(model)
            assert not {"object", "created", "owned_by"} & set(model)
            assert model["type"] == "model"

    def test_the_picker_shows_every_stage_first(self, running: Installation, key: str) -> None:
        models = discovered(running, key).json()["data"]
        shown = [model for model in models if SHOWN.search(model["id"])]
        assert [model["id"] for model in shown][:3] == [f"claude-cfx-{stage}" for stage in STAGES]
        assert [model["display_name"] for model in shown][:3] == [f"CodexFlow {stage}" for stage in STAGES]
        assert all(0 < len(model["description"]) <= 100 for model in shown[:3])
        assert "claude-haiku-5.5" in [model["id"] for model in shown]
        by_id = {model["id"]: model for model in models}
        for stage in STAGES:
            alias, name = by_id[f"claude-cfx-{stage}"], by_id[f"cfx-{stage}"]
            assert {field: alias.get(field) for field in ("context_window", "max_output_tokens", "takes")} == {
                field: name.get(field) for field in ("context_window", "max_output_tokens", "takes")
            }

    def test_other_clients_lists_are_without_the_aliases(self, running: Installation, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        listed = httpx.get(f"{running.url}/v1/models?limit=1000", headers=headers).json()
        assert listed["object"] == "list"
        codex = httpx.get(f"{running.url}/v1/models?client_version=0.171.0", headers=headers).json()
        names = [model["id"] for model in listed["data"]] + [model["slug"] for model in codex["models"]]
        assert not [name for name in names if "claude-cfx" in name]

    @pytest.mark.parametrize("name", ["claude-cfx-plan", "claude-haiku-5.5"])
    def test_a_single_model_is_shown_in_the_same_shape(self, running: Installation, key: str, name: str) -> None:
        shown = discovered(running, key, f"/v1/models/{name}").json()
        assert shown in discovered(running, key).json()["data"]
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{running.url}/v1/models/{name}", headers=headers).json()["object"] == "model"

    def test_refusals_have_anthropics_envelope(self, running: Installation, key: str) -> None:
        for response in (discovered(running, "cfx_x"), discovered(running, key, "/v1/models/nobody")):
            assert response.status_code in (401, 404)
            assert response.json()["type"] == "error"

    def test_a_restricted_key_discovers_what_it_may_use(self, running: Installation) -> None:
        def aliases(**terms: Any) -> list[str]:
            models = discovered(running, a_key(**terms).plain).json()["data"]
            return [model["id"] for model in models if model["id"].startswith("claude-cfx-")]

        assert aliases(allowed_stages=("review",)) == ["claude-cfx-review"]
        assert aliases(allowed_models=("gpt-6-luna",)) == ["claude-cfx-review"]
        assert aliases(allowed_models=("claude-haiku-5.5",)) == []


class TestPickersNames:
    @pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
    @pytest.mark.parametrize("stage", STAGES)
    def test_each_is_callable_on_every_surface_as_its_stage(
        self, running: Installation, key: str, case: SurfaceCase, stage: str
    ) -> None:
        as_alias, as_stage = (
            running.ask(key, case.path, **{**case.body("Hello"), "model": f"{prefix}cfx-{stage}"})
            for prefix in ("claude-", "")
        )
        assert as_alias.headers["x-cfx-stage"] == stage
        assert as_alias.headers["x-cfx-stage-reason"] == "stage-alias"
        bodies = [received(running, response)["body"] for response in (as_alias, as_stage)]
        assert bodies[0] == bodies[1]
        row = running.row_of(as_alias)
        assert (row.requested_model, row.stage) == (f"claude-cfx-{stage}", stage)

    def test_refusals_name_it_and_what_is_allowed(self, running: Installation) -> None:
        only_plan = a_key(allowed_stages=("plan",)).plain
        stage = running.ask(only_plan, "/v1/messages", **MESSAGE)
        assert (stage.status_code, stage.json()["error"]["code"]) == (403, "stage_not_allowed")
        only_haiku = a_key(allowed_models=("claude-haiku-5.5",)).plain
        model = running.ask(only_haiku, "/v1/messages", **MESSAGE)
        assert (model.status_code, model.json()["error"]["code"]) == (403, "model_not_allowed_for_key")
        assert "claude-cfx-code" in model.json()["error"]["message"]
        assert "claude-haiku-5.5" in model.json()["error"]["message"]

    def test_no_glob_of_the_configuration_takes_them(self, running: Installation, key: str) -> None:
        """`claude-*` is an alias of a model as shipped."""
        response = running.ask(key, "/v1/messages", **{**MESSAGE, "model": "claude-cfx-review"})
        assert (response.headers["x-cfx-stage"], response.headers["x-cfx-model"]) == ("review", "gpt-6-luna")
        other = running.ask(key, "/v1/messages", **{**MESSAGE, "model": "claude-cfx-unknown"})
        assert other.headers["x-cfx-stage-reason"] == "alias"
