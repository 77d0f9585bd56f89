"""Public pages: documentation, API reference, agent doctor, status and legal texts."""

import re
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from django.template.loader import render_to_string
from django.test import Client
from django.urls import reverse

from accounts.services import ensure_site_settings
from codexflow import __version__
from codexflow.dev import doc_dates
from codexflow.env import REPOSITORY
from codexflow.lib.addresses import site_url
from codexflow.pages import doctor, library, markdown, status
from codexflow.pages.library import FILES
from codexflow.pages.reference import EXCLUDED_PATHS
from codexflow.settings import ENV
from tests.support.cast import Cast

# Documents for operators and contributors.
NOT_FOR_CUSTOMERS = {"glossary.md", "settings.md", "litellm.md", "metrics.md"}


def shown(client: Client, name: str, *args: Any) -> str:
    response = client.get(reverse(name, args=args))
    assert response.status_code == 200
    return response.content.decode()


@pytest.mark.parametrize("address", FILES)
def test_every_document_is_a_page_without_broken_links(client: Client, cast: Cast, address: str) -> None:
    text = shown(client, "docs-page", address)
    article = text.partition("<article")[2].partition("</article>")[0]
    assert article.count("<h1") == 1
    article = article.partition('<div class="doc')[2]
    for href in re.findall(r'href="(/[^"#]*)', article):
        assert client.get(href).status_code == 200, href
    anchors = set(re.findall(r'id="([^"]+)"', article))
    assert set(re.findall(r'href="#([^"]+)"', article)) <= anchors
    assert ".md" not in re.sub(r"<code.*?</code>|<pre.*?</pre>|data-copy=\"[^\"]*\"", "", article, flags=re.DOTALL)


def test_every_customer_document_is_listed() -> None:
    folder = REPOSITORY / "docs"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*.md") if "operators" not in path.parts}
    translated = {file for file in there if file.startswith(tuple(library.TRANSLATIONS.values()))}
    assert set(FILES.values()) == there - translated - NOT_FOR_CUSTOMERS
    assert {file.partition("/")[2] for file in translated} <= set(FILES.values())


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


@pytest.mark.parametrize("address", FILES)
def test_the_markdown_of_a_page_has_absolute_links_and_this_sites_urls(
    client: Client, cast: Cast, address: str
) -> None:
    client.force_login(cast.ada)
    response = client.get(reverse("docs-source", args=[address]))
    assert response["Content-Type"] == "text/markdown; charset=utf-8"
    text = response.content.decode()
    assert cast.key.prefix not in text
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", outside)
    assert all(link.startswith(("http", "#")) for link in links), links
    for link in links:
        if link.startswith(site_url(ENV)):
            assert client.get(link.removeprefix(site_url(ENV)).partition("#")[0]).status_code == 200, link


def test_the_markdown_contains_the_url_of_the_installation(client: Client, cast: Cast, monkeypatch: Any) -> None:
    monkeypatch.setattr("codexflow.pages.docs.ENV", replace(ENV, site_url="https://cfx.example"))
    text = client.get("/docs/clients/codex-cli.md").content.decode()
    assert 'base_url = "https://cfx.example/v1"' in text
    assert "127.0.0.1" not in text
    assert "](https://cfx.example/docs/surfaces.md#tools)" in text
    assert client.get("/docs/settings.md").status_code == 404


def test_a_page_names_its_markdown_its_last_change_and_the_version(client: Client, cast: Cast) -> None:
    text = shown(client, "docs-page", "clients/claude-code")
    assert 'data-copy-from="/docs/clients/claude-code.md"' in text
    assert '<link rel="alternate" type="text/markdown" href="/docs/clients/claude-code.md">' in text
    assert f"CodexFlow {__version__}" in text
    tested = library.tested("clients/claude-code")
    assert tested
    assert f"Tested with version {tested.version} on" in text
    assert "Last changed on" in text
    assert "Tested with version" not in shown(client, "docs-page", "clients/cursor")


def test_recorded_dates_belong_to_the_documents_as_they_are() -> None:
    """After a change of a document: `make doc-dates`."""
    known = doc_dates.recorded()
    assert doc_dates.renewed(known, doc_dates.texts(), date.max) == known


def test_only_changed_documents_get_a_new_date() -> None:
    known = doc_dates.renewed({}, {"a.md": "A", "b.md": "B"}, date(2026, 1, 1))
    after = doc_dates.renewed(known, {"a.md": "A", "b.md": "B!"}, date(2026, 2, 2))
    assert [after[file]["changed_on"] for file in ("a.md", "b.md")] == ["2026-01-01", "2026-02-02"]


def test_llms_txt_lists_every_document_once_with_a_line_on_it(client: Client, cast: Cast) -> None:
    response = client.get("/llms.txt", headers={"accept-language": "tr"})
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    text = response.content.decode()
    assert text.startswith("# CodexFlow\n\n> ")
    lines = re.findall(r"^- \[([^\]]+)\]\(([^)]+)\): (.+)$", text, re.MULTILINE)
    paths = [url.removeprefix(site_url(ENV)) for _name, url, _summary in lines]
    generated = {"/docs/quickstart.md", "/docs/reference.md"}
    documents = [path for path in paths if path.endswith(".md") and path not in generated]
    assert documents == [f"/docs/{address}.md" for address in FILES]
    assert generated <= set(paths)
    assert all(client.get(path).status_code == 200 for path in paths)
    assert len({summary for _name, _url, summary in lines}) == len(lines)
    assert "Every error code" in text


def test_llms_full_txt_has_the_text_of_every_document(client: Client, cast: Cast) -> None:
    text = client.get("/llms-full.txt").content.decode()
    for file in FILES.values():
        assert (library.FOLDER / file).read_text().partition("\n")[0] in text, file


def test_the_markdown_of_the_quickstart_has_no_readers_key_and_follows_the_language(client: Client, cast: Cast) -> None:
    client.force_login(cast.ada)
    text = client.get("/docs/quickstart.md").content.decode()
    assert text.startswith("# Quickstart\n")
    assert "export CODEXFLOW_API_KEY=cfx_…" in text
    assert cast.key.prefix not in text
    assert f"]({site_url(ENV)}/docs/clients/cursor.md)" in text
    for name in ("docs", "docs-reference"):
        assert "data-copy-from" in shown(client, name)
    turkish = Client(headers={"accept-language": "tr"}).get("/docs/quickstart.md").content.decode()
    assert turkish.startswith("# Hızlı başlangıç\n")
    assert "Refused requests" not in turkish


def test_the_markdown_of_the_reference_has_every_operation(client: Client, cast: Cast) -> None:
    text = client.get("/docs/reference.md").content.decode()
    paths = client.get(reverse("api-schema"), headers={"accept": "application/json"}).json()["paths"]
    for path in paths:
        assert (f" {path}`" in text) is not (path in EXCLUDED_PATHS), path
    # A bar in a type does not end its cell.
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def test_links_in_code_stay_as_they_are() -> None:
    text = "[a](b.md) `x`\n```\n[a](b.md)\n```\n[`c`](d.md#e) [f](https://g) [h](#i)\n"
    assert library.portable(text, {"b.md": "/B"}.get) == (
        "[a](/B) `x`\n```\n[a](b.md)\n```\n`c` [f](https://g) [h](#i)\n"
    )


def test_markdown_html_and_unsafe_links_are_escaped() -> None:
    text = "# T\n\n<script>alert(1)</script> <b onclick=x>b</b> [x](javascript:alert(1)) [y](data:text/html,x)"
    rendered = markdown.render(text, resolve=lambda _href: None)
    assert rendered.title == "T"
    assert "<script" not in rendered.html
    assert "<b" not in rendered.html
    assert "javascript:" not in re.sub(r">[^<]*<", "><", rendered.html)
    assert 'href="data:' not in rendered.html


def test_a_translation_has_the_anchors_of_its_original() -> None:
    original = markdown.render("# T\n\n## One\n\n### Two\n", resolve=lambda _href: None)
    assert original.anchors == ("one", "two")
    turkish = markdown.render("# B\n\n## Bir\n\n### İki\n", resolve=lambda _href: None, anchors=original.anchors)
    assert '<h3 id="two">İki</h3>' in turkish.html
    assert [heading.anchor for heading in turkish.headings] == ["one"]
    other = markdown.render("# B\n\n## Üç\n", resolve=lambda _href: None, anchors=original.anchors)
    assert other.anchors == ("uc",)


def test_a_document_is_cut_into_sections_at_its_headings() -> None:
    text = "# T\n\nBegin\n`here`.\n\n## A\n\n| x | y |\n| --- | --- |\n| 1 | [2](z) |\n\n### B\n\n```\ncode  1\n```\n"
    rendered = markdown.render(text, resolve=lambda _href: None)
    assert [(part.anchor, part.heading, part.text) for part in rendered.sections] == [
        ("", "T", "Begin here."),
        ("a", "A", "x · y ; 1 · 2 ;"),
        ("b", "B", "code 1"),
    ]


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


def test_the_landing_page_has_a_few_models_and_leads_to_all_of_them(client: Client, cast: Cast) -> None:
    response = client.get("/")
    everything = client.get(reverse("pricing")).context["prices"]
    shown_prices = response.context["prices"]
    assert len(shown_prices) == 6 < len(everything)
    assert {stage for each in shown_prices for stage in each["stages"]} == {"plan", "code", "review"}
    text = response.content.decode()
    assert f'href="{reverse("pricing")}#models"' in text
    assert f"All {len(everything)} models and prices" in text


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


def test_a_disabled_model_is_named_with_the_time_since_when() -> None:
    since = {"gpt-6.1-sol": "2026-03-01T10:20:30+00:00"}
    details = {"circuits": {}, "circuits_open_for_all": ["gpt-6.1-sol", "other"], "circuits_open_since": since}
    facts = status.facts_of(a_report(**details))
    text = render_to_string("pages/status.html#state", facts)
    assert 'gpt-6.1-sol</code> (since 1 Mar 10:20 UTC), <code class="mono">other</code></p>' in " ".join(text.split())


def test_without_a_gateway_the_status_page_says_so(client: Client, cast: Cast) -> None:
    assert "has no status" in shown(client, "status")


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
