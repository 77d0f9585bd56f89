"""Error pages, each with the request id that the log has."""

import re

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.defaults import page_not_found

from codexflow.lib.envelope import envelope
from codexflow.lib.errors import BadRequest
from codexflow.pages.middleware import request_id_of
from routing.errors import UnknownRoute

# Ends of the API's paths, which clients ask for below a wrong base URL.
_LAST_PARTS = re.compile(r"/(?:v1|models|messages|responses|embeddings|completions|count_tokens)/?$")
_BASE_URL_HINT = "There is no such endpoint. The base URL of the API ends in /v1."


def too_many(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """429 for rate-limited forms: sign-in, codes, mails."""
    response = render(request, "429.html", status=429)
    response["Retry-After"] = "60"
    return response


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """404 page; for clients of the API, the error envelope, so that a wrong base URL explains itself."""
    if not _is_api_client(request):
        return page_not_found(request, exception or Http404())
    error = UnknownRoute(_BASE_URL_HINT if _LAST_PARTS.search(request.path) else None)
    response = JsonResponse(envelope(error), status=int(error.status))
    response["X-CFX-Request-Id"] = request_id_of(request)
    return response


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """400 page for forms that no page sends; for the API and its clients the error envelope."""
    if not request.path.startswith("/api/") and not _is_api_client(request):
        return render(request, "400.html", status=400)
    response = JsonResponse(envelope(BadRequest()), status=400)
    response["X-CFX-Request-Id"] = request_id_of(request)
    return response


def _is_api_client(request: HttpRequest) -> bool:
    accept = request.headers.get("accept", "")
    has_key = "authorization" in request.headers or "x-api-key" in request.headers
    return "text/html" not in accept and (has_key or "application/json" in accept)


def failed(request: HttpRequest) -> HttpResponse:
    """500 page. Uses neither database nor session nor context processors, because these may have failed."""
    return HttpResponse(render_to_string("500.html", {"request_id": request_id_of(request)}), status=500)
