"""Error pages, each with the request id that the log has."""

import re
import sys

from django.contrib import messages
from django.core.exceptions import DisallowedHost
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.views.defaults import page_not_found

from codexflow.lib.envelope import envelope
from codexflow.lib.errors import AppError, BadRequest, DatabaseUnavailable
from codexflow.lib.http import RETRY_DATABASE_AFTER_S
from codexflow.pages.middleware import request_id_of
from routing.errors import UnknownRoute

# Ends of the API's paths, which clients ask for below a wrong base URL.
_LAST_PARTS = re.compile(r"/(?:v1|models|messages|responses|embeddings|rerank|moderations|completions|count_tokens)/?$")
API = "/api/"
_BASE_URL_HINT = "There is no such endpoint. The base URL of the API ends in /v1."


def too_many(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """429 for rate-limited forms: sign-in, codes, mails. Asking for another code too soon leads back to its form."""
    if request.POST.get("action") == "resend":
        messages.error(request, _("A code was sent moments ago. Wait a few seconds before you request another."))
        return redirect(request.path)
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
    if not request.path.startswith(API) and not _is_api_client(request):
        is_other_host = isinstance(exception, DisallowedHost)
        return render(request, "400.html", {"is_other_host": is_other_host}, status=400)
    response = JsonResponse(envelope(BadRequest()), status=400)
    response["X-CFX-Request-Id"] = request_id_of(request)
    return response


def _is_api_client(request: HttpRequest) -> bool:
    accept = request.headers.get("accept", "")
    has_key = "authorization" in request.headers or "x-api-key" in request.headers
    return "text/html" not in accept and (has_key or "application/json" in accept)


def unavailable_page(request_id: str) -> str:
    """Render the 503 page, in the language that is active."""
    return render_to_string("503.html", {"request_id": request_id})


def failed(request: HttpRequest) -> HttpResponse:
    """500 page, or 503 while the database is away; the error envelope for the management API.

    Uses neither database nor session nor context processors, because these may have failed.
    """
    is_away = isinstance(sys.exception(), OperationalError | InterfaceError)
    error = DatabaseUnavailable() if is_away else AppError()
    request_id, status = request_id_of(request), int(error.status)
    if request.path.startswith(API):
        response: HttpResponse = JsonResponse(envelope(error), status=status)
    elif is_away:
        response = HttpResponse(unavailable_page(request_id), status=status)
    else:
        response = HttpResponse(render_to_string("500.html", {"request_id": request_id}), status=status)
    if is_away:
        response["Retry-After"] = str(RETRY_DATABASE_AFTER_S)
    return response
