"""Pages of the playground, and its calls as code."""

import ast
import html
import json
import re
import shlex

import pytest
from django.test import Client
from django.urls import reverse

from billing.models import Plan
from codexflow.lib.snippets import snippets_of
from tests.support.cast import Cast, an_event_of, happened, keeps

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
    # Words about keys may have their beginning.
    assert not re.search(r"cfx_\w", page.get(reverse("playground", args=[cast.slug])).content.decode())


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


def test_the_code_has_the_whole_conversation(page: Client, cast: Cast) -> None:
    said = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"}]
    where = reverse("playground-code", args=[cast.slug])

    def messages(**fields: str) -> list[dict[str, str]]:
        response = page.post(where, {"stage": "auto", **fields}, headers=HTMX)
        words = shlex.split(response.context["snippets"][0].code)
        found: list[dict[str, str]] = json.loads(words[words.index("-d") + 1])["messages"]
        return found

    assert messages(messages=json.dumps(said), prompt="Three") == [*said, {"role": "user", "content": "Three"}]
    assert messages(messages=json.dumps(said[:1])) == said[:1]
    for odd in ("", "x", "{}", '[{"role": "system", "content": ""}]', '[{"role": "user"}]', "[1]", "[" * 5000):
        assert messages(messages=odd) == [{"role": "user", "content": "Hello"}]


def test_a_second_model_is_offered_where_models_may_be_named(page: Client, cast: Cast) -> None:
    where = reverse("playground", args=[cast.slug])
    assert len(page.get(where).context["form"].fields["second"].choices) > 2
    Plan.objects.update(allowed_stages=["plan"])
    response = page.get(where)
    assert "second" not in response.context["form"].fields
    assert "id_second" not in response.content.decode()


def test_the_page_knows_the_way_out_of_every_refusal(page: Client, cast: Cast) -> None:
    advice = page.get(reverse("playground", args=[cast.slug])).context["advice"]
    assert advice["insufficient_quota"][2] == reverse("billing", args=[cast.slug])
    assert all(title and to_do for title, to_do, _page in advice.values())


KEPT = {
    "model": "gpt-6.1-sol",
    "messages": [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three"},
    ],
    "temperature": 0.5,
    "max_tokens": 700,
}
ANSWER = json.dumps({"choices": [{"message": {"role": "assistant", "content": "Four"}}]})


def test_a_request_of_the_log_is_opened_with_everything_filled_in(page: Client, cast: Cast) -> None:
    event = an_event_of(cast, stage="direct", requested_model="gpt-6.1-sol", model="gpt-6.1-sol")
    happened(cast, event)
    keeps(cast, event.request_id, request=json.dumps(KEPT), answer=ANSWER)
    where = f"{reverse('playground', args=[cast.slug])}?request={event.request_id}"
    assert html.escape(where) in page.get(reverse("request", args=[cast.slug, event.request_id])).content.decode()
    response = page.get(where)
    opened = response.context["opened"]
    assert opened["fields"] == {"stage": "direct", "model": "gpt-6.1-sol"}
    assert opened["parameters"] == {"system": "Be brief", "temperature": "0.5", "max_tokens": "700"}
    assert [*opened["turns"]] == [("user", "One"), ("assistant", "Two"), ("user", "Three"), ("assistant", "Four")]
    assert opened["is_whole"]
    assert "no-store" in response["cache-control"]
    assert "no-store" not in page.get(reverse("playground", args=[cast.slug])).get("cache-control", "")


def test_a_request_without_its_prompt_is_opened_with_its_stage(page: Client, cast: Cast) -> None:
    event, cut = an_event_of(cast, stage="review"), an_event_of(cast, stage="plan")
    happened(cast, event, cut)
    where = reverse("playground", args=[cast.slug])
    response = page.get(where, {"request": str(event.request_id)})
    assert response.context["opened"]["fields"] == {"stage": "review"}
    assert "Its prompt is not kept" in response.content.decode()
    keeps(cast, cut.request_id, request=json.dumps({"messages": [{"content": "a" * 10_000_000}]}), answer=ANSWER)
    response = page.get(where, {"request": str(cut.request_id)})
    assert response.context["opened"]["turns"] == []
    assert "Its prompt is longer than what is kept" in response.content.decode()
    Plan.objects.update(allowed_stages=["code"])
    assert page.get(where, {"request": str(event.request_id)}).context["opened"]["fields"] == {}


def test_only_members_who_may_read_prompts_open_requests(page: Client, client: Client, cast: Cast) -> None:
    event, other = an_event_of(cast), an_event_of(cast, surface="embeddings")
    happened(cast, event, other)
    keeps(cast, event.request_id, request=json.dumps(KEPT), answer=ANSWER)
    where, query = reverse("playground", args=[cast.slug]), {"request": str(event.request_id)}
    for odd in ("", "x", "01900000-0000-7000-8000-000000000000"):
        assert page.get(where, {"request": odd}).status_code == 404
    assert where + "?" not in page.get(reverse("request", args=[cast.slug, other.request_id])).content.decode()
    client.force_login(cast.vic)
    assert client.get(where, query).status_code == 403
    assert where + "?" not in client.get(reverse("request", args=[cast.slug, event.request_id])).content.decode()
    client.force_login(cast.eve)
    assert client.get(where, query).status_code == 404
    own = reverse("playground", args=[cast.eve.organizations.get().slug])
    assert client.get(own, query).status_code == 404
