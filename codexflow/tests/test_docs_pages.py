"""Public pages: documentation, API reference, agent doctor, status and legal texts."""

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.services import ensure_site_settings
from codexflow.env import REPOSITORY
from codexflow.pages import doctor, markdown, status
from codexflow.pages.docs import FILES
from codexflow.pages.reference import EXCLUDED_PATHS
from tests.support.cast import Cast

# Documents for operators and contributors.
NOT_FOR_CUSTOMERS = {"settings.md", "litellm.md", "metrics.md"}


def shown(client: Client, name: str, *args: Any) -> str:
    response = client.get(reverse(name, args=args))
    assert response.status_code == 200
    return response.content.decode()


@pytest.mark.parametrize("address", FILES)
def test_every_document_is_a_page_without_broken_links(client: Client, cast: Cast, address: str) -> None:
    text = shown(client, "docs-page", address)
    article = text.partition("<article")[2].partition("</article>")[0]
    assert article.count("<h1") == 1
    for href in re.findall(r'href="(/[^"#]*)', article):
        assert client.get(href).status_code == 200, href
    anchors = set(re.findall(r'id="([^"]+)"', article))
    assert set(re.findall(r'href="#([^"]+)"', article)) <= anchors
    assert ".md" not in re.sub(r"<code.*?</code>|<pre.*?</pre>|data-copy=\"[^\"]*\"", "", article, flags=re.DOTALL)


def test_every_customer_document_is_listed() -> None:
    folder = REPOSITORY / "docs"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*.md")}
    assert set(FILES.values()) == there - NOT_FOR_CUSTOMERS


@pytest.mark.parametrize("address", ["settings", "../README", "..%2f..%2fetc/passwd", "clients/nobody"])
def test_other_documents_are_not_served(client: Client, cast: Cast, address: str) -> None:
    assert client.get(f"/docs/{address}/").status_code == 404


def test_examples_contain_the_site_url_and_the_readers_key_prefix(client: Client, cast: Cast, settings: Any) -> None:
    plain = shown(client, "docs-page", "clients/openai-python")
    assert "cfx_…" in plain
    client.force_login(cast.ada)
    own = shown(client, "docs-page", "clients/openai-python")
    assert f"{cast.key.prefix}…" in own
    assert "cfx_…" not in own
    assert f"{cast.key.prefix}…" in shown(client, "docs")
    client.force_login(cast.ben)  # keys that other members made are not shown
    assert cast.key.prefix not in shown(client, "docs-page", "clients/openai-python")


def test_markdown_html_and_unsafe_links_are_escaped() -> None:
    text = "# T\n\n<script>alert(1)</script> <b onclick=x>b</b> [x](javascript:alert(1)) [y](data:text/html,x)"
    rendered = markdown.render(text, resolve=lambda _href: None)
    assert rendered.title == "T"
    assert "<script" not in rendered.html
    assert "<b" not in rendered.html
    assert "javascript:" not in re.sub(r">[^<]*<", "><", rendered.html)
    assert 'href="data:' not in rendered.html


def test_equal_headings_get_distinct_anchors() -> None:
    rendered = markdown.render("## A\n\n## A\n", resolve=lambda _href: None)
    assert [heading.anchor for heading in rendered.headings] == ["a", "a-2"]


def test_the_reference_has_every_operation_of_the_schema(client: Client, cast: Cast) -> None:
    text = shown(client, "docs-reference")
    paths = client.get(reverse("api-schema"), headers={"accept": "application/json"}).json()["paths"]
    for path in paths:
        is_left_out = path in EXCLUDED_PATHS
        assert (f">{path}</code>" in text) is not is_left_out, path
    assert "budget_month_usd" in text
    assert "array of object" in text


@pytest.mark.parametrize("name", ["terms", "privacy"])
def test_operators_replace_the_legal_texts(client: Client, cast: Cast, name: str) -> None:
    shipped = shown(client, name)
    assert "template that comes with the product" not in shipped
    site = ensure_site_settings()
    site.support_email = "help@example.org"
    setattr(site, f"{name}_text", "# Our own\n\nWords & <i>more</i>.")
    site.save()
    text = shown(client, name)
    assert "Our own" in text
    assert "Words &amp; &lt;i&gt;more" in text
    assert "mailto:help@example.org" in text


def test_pricing_follows_the_plans(client: Client, cast: Cast) -> None:
    text = shown(client, "pricing")
    assert "20,000" in text
    assert "claude-sonnet-5.5" in text
    assert "Internal" not in text


def test_the_landing_page_shows_an_example_of_the_chosen_stage(client: Client, cast: Cast) -> None:
    assert "upstream_error" in client.get("/").content.decode()
    part = client.get("/?stage=code", headers={"hx-request": "true"}).content.decode()
    assert "<html" not in part
    assert "upstream_error" not in part
    assert "deepseek-v4.1-flash" in part


def a_report(**details: Any) -> dict[str, Any]:
    known = {"upstream": "demo", "limiter": "shared", "circuits": {}, "config_problems": [], "draining": False}
    checks = {"config": True, "database": True, "redis": True, "litellm": True}
    return {"status": "degraded", "version": "0.1.0", "checks": checks, "details": {**known, **details}}


@pytest.mark.parametrize(
    ("details", "count"),
    [({}, 0), ({"limiter": "degraded"}, 1), ({"circuits": {"gpt-6.1-sol": "open"}, "draining": True}, 2),
     ({"config_problems": ["/etc/secret.yaml: stages: missing"]}, 1)],
)  # fmt: skip
def test_degraded_modes_in_force_are_marked(details: dict[str, Any], count: int) -> None:
    facts = status.facts_of(a_report(**details))
    assert sum(mode.is_in_force for mode in facts["modes"]) == count
    assert "/etc/secret" not in repr(facts)


def test_without_a_gateway_the_status_page_says_so(client: Client, cast: Cast) -> None:
    assert "knows nothing" in shown(client, "status")


def test_every_page_has_a_request_id_and_error_pages_show_it(client: Client, cast: Cast) -> None:
    response = client.get("/nowhere/")
    assert response["X-CFX-Request-Id"] in response.content.decode()
    client.force_login(cast.vic)
    refused = client.get(reverse("key-create", args=[cast.slug]))
    assert refused.status_code == 403
    assert refused["X-CFX-Request-Id"] in refused.content.decode()


def test_the_500_page_shows_the_request_id_without_a_database(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("codexflow.catalogue.directory.in_force", fails)
    response = Client(raise_request_exception=False).get("/")
    assert response.status_code == 500
    assert response["X-CFX-Request-Id"] in response.content.decode()


def test_a_rate_limited_form_shows_the_429_page(client: Client, cast: Cast, settings: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"signup": "1/m/ip"}
    where = reverse("account_signup")
    form = {"email": "x@example.org", "password1": "short"}
    responses = [client.post(where, form, REMOTE_ADDR="203.0.113.77") for _ in range(3)]
    assert responses[-1].status_code == 429
    assert "Too many attempts" in responses[-1].content.decode()
    assert responses[-1]["Retry-After"] == "60"


def test_the_doctor_script_contains_the_url_and_no_secret(client: Client, cast: Cast) -> None:
    client.force_login(cast.ada)
    response = client.get("/doctor.sh")
    assert response["Content-Type"].startswith("text/x-shellscript")
    text = response.content.decode()
    assert "__BASE_URL__" not in text
    assert "cfx_" not in text.replace("(cfx_...)", "")
    assert "| sh" in shown(client, "doctor")


def test_a_url_is_quoted_in_the_doctor_script() -> None:
    assert "BASE_URL='https://x/$(touch y)/v1'\n" in doctor.text_of("https://x/$(touch y)/v1")
