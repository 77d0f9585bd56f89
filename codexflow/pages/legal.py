"""Terms and privacy pages: the operator's own text, or the template that comes with the product."""

from functools import lru_cache

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import get_language
from django.views.decorators.http import require_safe

from accounts.services import ensure_site_settings
from codexflow.pages import markdown


@require_safe
def terms(request: HttpRequest) -> HttpResponse:
    """Terms of service."""
    site = ensure_site_settings()
    own = _rendered(site.terms_text, get_language() or "en")
    return render(request, "pages/terms.html", {"own": own, "site": site})


@require_safe
def privacy(request: HttpRequest) -> HttpResponse:
    """Privacy notice."""
    site = ensure_site_settings()
    own = _rendered(site.privacy_text, get_language() or "en")
    return render(request, "pages/privacy.html", {"own": own, "site": site})


@lru_cache(maxsize=8)
def _rendered(text: str, _language: str) -> markdown.Rendered | None:
    return markdown.render(text, resolve=lambda _href: None) if text.strip() else None
