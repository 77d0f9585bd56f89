"""Public pages, error pages and response headers."""

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.test import Client
from django.urls import reverse
from django.utils import translation
from django.views.defaults import server_error

from accounts.models import User
from billing.models import Plan
from tests.support.cast import Cast

STRICT = (
    "default-src 'self'", "script-src 'self'", "style-src 'self'", "object-src 'none'", "base-uri 'none'",
    "frame-ancestors 'none'", "form-action 'self' https://github.com https://accounts.google.com",
)  # fmt: skip


def policy(response: Any) -> list[str]:
    header: str = response["Content-Security-Policy"]
    return [part.strip() for part in header.split(";")]


def test_the_landing_page_has_the_plans_and_prices_of_this_installation(client: Client, cast: Cast) -> None:
    Plan.objects.filter(slug="pro").update(price_month_nanos=77_500_000_000)
    text = client.get("/").content.decode()
    for shown in (
        "$77.50",
        "$0.50 of credit once, to start with",
        "claude-sonnet-5.5",
        "$15.00",
        "deepseek-v4.1-flash",
        "1,000 requests per day",
    ):
        assert shown in text, shown
    assert 'data-plan="free"' in text
    assert "Internal" not in text


def test_the_landing_page_is_translated(client: Client, cast: Cast) -> None:
    text = client.get("/", headers={"accept-language": "tr-TR,tr;q=0.9"}).content.decode()
    assert '<html lang="tr"' in text
    assert "günde 10.000 istek" in text
    assert "$0,50" in text


def test_every_page_has_the_strict_content_security_policy(client: Client, cast: Cast) -> None:
    client.force_login(cast.ada)
    for where in ("/", "/accounts/login/", "/nowhere", "/settings/", f"/o/{cast.slug}/", f"/o/{cast.slug}/keys/"):
        parts = policy(client.get(where))
        assert set(STRICT) <= set(parts), where
        assert "unsafe" not in " ".join(parts), where


def test_only_the_tables_of_operators_relax_the_content_security_policy(client: Client, cast: Cast) -> None:
    client.force_login(User.objects.create_superuser("root@example.org"))
    assert "unsafe" not in " ".join(policy(client.get("/ops/")))
    parts = " ".join(policy(client.get("/ops/accounts/user/")))
    assert "script-src 'self' 'unsafe-eval'" in parts
    assert "style-src 'self' 'unsafe-inline'" in parts
    assert "'unsafe-inline' 'unsafe-eval'" not in parts


def test_an_address_that_only_takes_forms_has_a_page(client: Client, cast: Cast) -> None:
    client.force_login(cast.ada)
    response = client.get(reverse("account-export"), headers={"accept": "text/html"})
    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert "only takes what a form sends" in response.content.decode()
    assert client.get(reverse("account-export")).content == b""


def test_the_404_page_uses_the_site_design(client: Client, cast: Cast) -> None:
    response = client.get("/nowhere")
    assert response.status_code == 404
    assert "Page not found" in response.content.decode()


def test_the_500_page_needs_no_database() -> None:
    with translation.override("en"):
        response = server_error(HttpRequest())
    assert response.status_code == 500
    assert "Something went wrong on our side" in response.content.decode()
    assert "css/app.css" in render_to_string("500.html")


def test_the_csrf_failure_page_uses_the_site_design(cast: Cast) -> None:
    response = Client(enforce_csrf_checks=True).post(reverse("language"), {"language": "tr"})
    assert response.status_code == 403
    assert "This page expired" in response.content.decode()


@pytest.mark.parametrize(("is_demo", "shown"), [(True, True), (False, False)])
def test_the_demo_upstream_is_announced(client: Client, cast: Cast, settings: Any, is_demo: bool, shown: bool) -> None:
    settings.ENV = replace(settings.ENV, is_demo_upstream=is_demo)
    client.force_login(cast.ada)
    assert ("Demo mode" in client.get(f"/o/{cast.slug}/keys/").content.decode()) is shown


def test_a_cached_fragment_is_not_shown_as_the_page(client: Client, cast: Cast) -> None:
    """Page and fragment share a URL: without Vary a browser that goes back would show the cached fragment."""
    client.force_login(cast.ada)
    for headers in ({}, {"hx-request": "true"}):
        for where in ("/", "/status/", f"/o/{cast.slug}/logs/", f"/o/{cast.slug}/members/"):
            assert "HX-Request" in client.get(where, headers=headers)["Vary"], where


def test_an_error_in_a_dialog_is_a_fragment(client: Client, cast: Cast) -> None:
    strict = Client(enforce_csrf_checks=True)
    for person, visitor in ((cast.vic, client), (cast.ada, strict)):
        visitor.force_login(person)
    create, htmx = f"/o/{cast.slug}/keys/create/", {"hx-request": "true"}
    for whole, part, message in (
        (client.get(create), client.get(create, headers=htmx), "Your role does not allow this"),
        (client.get("/nowhere"), client.get("/nowhere", headers=htmx), "Page not found"),
        (strict.post(create), strict.post(create, headers=htmx), "This page expired"),
    ):
        assert part.status_code == whole.status_code
        assert message in whole.content.decode()
        assert message in part.content.decode()
        assert 'id="toasts"' in whole.content.decode()
        assert "<html" not in part.content.decode()
        assert 'id="' not in part.content.decode()


def test_the_landing_page_sells(client: Client, cast: Cast) -> None:
    text = client.get("/").content.decode()
    for shown in ("Claude Code", "Codex", "Cursor", "img/overview", 'property="og:image"', 'property="og:title"'):
        assert shown in text, shown
    menu = text[text.index("<details") :].partition("</details>")[0]
    assert reverse("account_login") in menu
    client.force_login(cast.ada)
    assert f'href="{reverse("account_signup")}"' not in client.get("/").content.decode()


def test_each_plan_has_a_button_and_shows_its_trial(client: Client, cast: Cast) -> None:
    Plan.objects.filter(slug="pro").update(trial_days=14, trial_needs_card=False)
    for page in ("/", "/pricing/"):
        visitor = Client().get(page).content.decode()
        plans = visitor.split("data-plan=")[1:]
        assert len(plans) >= 3
        assert all(f'href="{reverse("account_signup")}"' in each.partition("</article>")[0] for each in plans)
        assert "14 days free, no card needed" in visitor
        assert "$0.50 of credit, once" in visitor
        assert "$45.00 of credit per month" in visitor
    client.force_login(cast.ada)
    for each in client.get("/pricing/").content.decode().split("data-plan=")[1:]:
        assert 'class="btn' in each.partition("</article>")[0]


def test_search_engines_find_public_pages_only(client: Client, cast: Cast) -> None:
    robots = client.get("/robots.txt")
    assert robots["Content-Type"].startswith("text/plain")
    assert "Disallow: /o/" in robots.content.decode()
    sitemap = robots.content.decode().partition("Sitemap: ")[2].strip()
    listed = ElementTree.fromstring(client.get("/sitemap.xml").content)  # noqa: S314 - our own
    urls = [str(each.text) for each in listed.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")]
    origin = sitemap.removesuffix("/sitemap.xml")
    assert f"{origin}/pricing/" in urls
    assert f"{origin}/docs/clients/cursor/" in urls
    for url in urls:
        assert client.get(url.removeprefix(origin)).status_code == 200, url


@pytest.mark.django_db
def test_an_address_that_is_not_served_is_told_apart_from_a_bad_form(client: Client) -> None:
    """SITE_URL names another host: the page says which settings to correct."""
    page = client.get("/accounts/login/", headers={"host": "wrong.example.com", "accept": "text/html"})
    assert page.status_code == 400
    assert "SITE_URL or ALLOWED_HOSTS" in page.content.decode()
    assert "more fields" not in page.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("host", ["wrong.example.com", "a b", "[::1", "x" * 10_000, "localhost:99999999"])
@pytest.mark.parametrize("redirects", [False, True])
def test_a_host_that_is_not_served_is_one_line_of_the_log(
    host: str, redirects: bool, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SECURE_SSL_REDIRECT = redirects
    settings.ALLOWED_HOSTS = ["codexflow.example"]
    with caplog.at_level("INFO"):
        page = Client().get("/", headers={"host": host, "accept-language": "tr"})
    assert page.status_code == 400
    assert page["Content-Security-Policy"]
    assert "SITE_URL" in page.content.decode()
    assert '<html lang="tr"' in page.content.decode()
    (line,) = caplog.records
    assert (line.message, line.levelname, line.exc_info) == ("pages.host_refused", "WARNING", None)


def test_a_null_character_in_a_query_is_a_bad_request(client: Client, cast: Cast) -> None:
    client.force_login(cast.ada)
    for where in (reverse("keys", args=[cast.slug]), reverse("members", args=[cast.slug]), reverse("docs-search")):
        assert client.get(where, {"q": "a\0b"}).status_code == 400, where
    refused = client.get("/api/v1/keys", {"organization": "a\0b"})
    assert (refused.status_code, "error" in refused.json()) == (400, True)
