"""Middleware: request ids, the content security policy of operator pages, and forms that are too much work."""

import logging
from collections.abc import Callable
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import BadRequest, DisallowedHost
from django.core.handlers.exception import get_exception_response
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import get_resolver
from django.utils import translation
from django.utils.cache import patch_vary_headers

from codexflow.lib.complexity import TooComplex, check_complexity
from codexflow.lib.ids import new_id

logger = logging.getLogger(__name__)

OPERATORS = "/ops/"


class RequestIdMiddleware:
    """Adds a request id to the response, its error page and its log lines."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with structlog.contextvars.bound_contextvars(request_id=request_id_of(request)):
            response = self.get_response(request)
        response.headers.setdefault("X-CFX-Request-Id", request_id_of(request))
        if response.headers.get("Content-Type", "").startswith("text/html"):
            # Pages and their fragments share a URL: going back must not show a fragment from the browser's cache.
            patch_vary_headers(response, ["HX-Request"])
        return response


class HostMiddleware:
    """Refuses hosts that are not served, with one line in the log and no traceback: anybody may send any.

    Static files are served all the same, for the page that says so.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith(settings.STATIC_URL):
            try:
                request.get_host()
            except DisallowedHost as exc:
                host = request.headers.get("host", "")[:100]
                logger.warning("pages.host_refused", extra={"host": host})
                with translation.override(translation.get_language_from_request(request)):
                    response = get_exception_response(request, get_resolver(), 400, exc)
                vars(response)["_has_been_logged"] = True  # Django logs other refusals
                return response
        return self.get_response(request)


class MethodPageMiddleware:
    """Gives the 405 of a page a body: Django sends none, and browsers then show an error page of their own."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code != 405 or response.content or "text/html" not in request.headers.get("Accept", ""):
            return response
        page = render(request, "405.html", status=405)
        page["Allow"] = response["Allow"]
        return page


class ComplexFormsMiddleware:
    """Refuses with 400 what no view can read: too much structure, nesting that is too deep, null characters."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_view: Any) -> HttpResponse | None:
        """Check the query, and the fields of a form, which may be JSON. The API has a parser of its own for that."""
        # PostgreSQL takes no text with one.
        if "\0" in request.path or any("\0" in each for values in request.GET.lists() for each in values[1]):
            return get_exception_response(request, get_resolver(), 400, BadRequest())
        if request.method in ("GET", "HEAD") or request.path.startswith("/api/"):
            return None
        try:
            for _, values in request.POST.lists():
                for value in values:
                    check_complexity(value.encode("utf-8", "replace"))
        except TooComplex as exc:
            return get_exception_response(request, get_resolver(), 400, exc)
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Convert a RecursionError of a request with a body; without one it is a fault of ours."""
        if not isinstance(exception, RecursionError) or request.method in ("GET", "HEAD"):
            return None
        logger.warning("pages.nested_too_deeply", extra={"path": request.path}, exc_info=exception)
        return get_exception_response(request, get_resolver(), 400, exception)


def request_id_of(request: HttpRequest) -> str:
    """Id of the request, created at its first use."""
    return str(vars(request).setdefault("cfx_request_id", str(new_id())))


class OperatorPagesMiddleware:
    """Allows eval and inline styles on the operators' tables only, because their library needs them."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        view = request.resolver_match.func if request.resolver_match else None
        # Our own pages below it have a menu entry, and need no exception; the list of all tables is the library's.
        is_ours = getattr(view, "section", "tables") != "tables"
        if request.path.startswith(OPERATORS) and not is_ours:
            vars(response)["_csp_update"] = {"script-src": ["'unsafe-eval'"], "style-src": ["'unsafe-inline'"]}
        return response
