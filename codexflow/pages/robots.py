"""robots.txt and sitemap.xml: which pages search engines may list."""

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import escape
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from codexflow.lib.addresses import site_url
from codexflow.pages.library import FILES
from codexflow.settings import ENV

# Public pages; organizations, accounts, operators and the API are nobody's search result.
PAGES = ("landing", "pricing", "docs", "docs-reference", "doctor", "status", "terms", "privacy")
FOR_MODELS = ("docs-quickstart-source", "docs-reference-source", "llms", "llms-full")
CLOSED = (
    "/o/", "/ops/", "/accounts/", "/settings/", "/organizations/", "/invitations/", "/api/", "/v1/",
    "/dev/", "/docs/search/",
)  # fmt: skip
DAY_S = 86_400


@require_safe
@cache_control(public=True, max_age=DAY_S)
def robots(request: HttpRequest) -> HttpResponse:
    """Close what needs a session, and name the sitemap."""
    lines = [
        "User-agent: *",
        *(f"Disallow: {path}" for path in CLOSED),
        f"Sitemap: {site_url(ENV)}{reverse('sitemap')}",
    ]
    return HttpResponse("\n".join(lines) + "\n", content_type="text/plain; charset=utf-8")


@require_safe
@cache_control(public=True, max_age=DAY_S)
def sitemap(request: HttpRequest) -> HttpResponse:
    """List the public pages."""
    paths = [reverse(name) for name in (*PAGES, *FOR_MODELS)]
    paths += [reverse(route, args=[address]) for address in FILES for route in ("docs-page", "docs-source")]
    urls = "".join(f"<url><loc>{escape(site_url(ENV) + path)}</loc></url>" for path in paths)
    body = f'<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="{_SCHEMA}">{urls}</urlset>'
    return HttpResponse(body, content_type="application/xml; charset=utf-8")


_SCHEMA = "http://www.sitemaps.org/schemas/sitemap/0.9"
