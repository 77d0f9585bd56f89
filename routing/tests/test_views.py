"""Pages of the playground, and its calls as code."""

import ast
import html
import json
import shlex

import pytest
from django.test import Client
from django.urls import reverse

from billing.models import Plan
from codexflow.lib.snippets import snippets_of
from tests.support.cast import Cast

HTMX = {"hx-request": "true"}


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ben)
    return client


def test_the_page_offers_what_the_plan_allows(page: Client, cast: Cast) -> None:
    where = reverse("playground", args=[cast.slug])
    form = page.get(where).context["form"]
    assert [name for name, _ in form.fields["stage"].choices] == ["auto", "plan", "code", "review", "direct"]
    assert len(form.fields["model"].choices) > 1
    Plan.objects.update(allowed_stages=["plan"], allowed_models=["gpt-6.1-sol"])
    form = page.get(where).context["form"]
    assert [name for name, _ in form.fields["stage"].choices] == ["auto", "plan"]
    assert [name for name, _ in form.fields["model"].choices] == ["gpt-6.1-sol"]


def test_the_page_contains_no_key_and_no_secret(page: Client, cast: Cast) -> None:
    assert "cfx_" not in page.get(reverse("playground", args=[cast.slug])).content.decode()


@pytest.mark.parametrize("role", ["vic", "ben"])
def test_only_roles_that_may_spend_get_the_link(client: Client, cast: Cast, role: str) -> None:
    client.force_login(getattr(cast, role))
    text = client.get(reverse("keys", args=[cast.slug])).content.decode()
    assert (reverse("playground", args=[cast.slug]) in text) is (role == "ben")


def test_the_code_sends_the_same_request_as_the_page(page: Client, cast: Cast) -> None:
    chosen = {
        "stage": "direct", "model": "gpt-6.1-sol", "system": "Be 'brief'", "temperature": "0.5", "max_tokens": "7",
        "prompt": "Say \"hi\"",
    }  # fmt: skip
    response = page.post(reverse("playground-code", args=[cast.slug]), chosen, headers=HTMX)
    curl, python, node = (each.code for each in response.context["snippets"])
    words = shlex.split(curl)
    body = json.loads(words[words.index("-d") + 1])
    assert body == {
        "model": "gpt-6.1-sol",
        "messages": [{"role": "system", "content": "Be 'brief'"}, {"role": "user", "content": 'Say "hi"'}],
        "stream": True,
        "temperature": 0.5,
        "max_tokens": 7,
    }
    assert "X-CFX-Stage: direct" in words
    ast.parse(python)
    assert "X-CFX-Stage" in node
    assert html.unescape(response.content.decode()).count('Say \\"hi\\"') >= 2


def test_invalid_parameters_are_reported(page: Client, cast: Cast) -> None:
    response = page.post(reverse("playground-code", args=[cast.slug]), {"stage": "plan", "temperature": "9"})
    assert response.status_code == 422
    assert "Temperature" in response.content.decode()


def test_odd_texts_survive_in_every_snippet() -> None:
    text = 'It\'s "odd" \\ \n \U0001f600 İ'
    call = {"model": "cfx-plan", "messages": [{"role": "user", "content": text}], "stream": True}
    curl, python, _ = (each.code for each in snippets_of("https://x/v1", call, stage=""))
    words = shlex.split(curl)
    assert json.loads(words[words.index("-d") + 1]) == call
    (create,) = (
        node
        for node in ast.walk(ast.parse(python))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("create")
    )
    assert {each.arg: ast.literal_eval(each.value) for each in create.keywords} == call
    assert "X-CFX-Stage" not in curl + python
