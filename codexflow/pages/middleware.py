"""Middleware: request ids, and the content security policy of operator pages."""

from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers

from codexflow.lib.ids import new_id

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


def request_id_of(request: HttpRequest) -> str:
    """Id of the request, created at its first use."""
    return str(vars(request).setdefault("cfx_request_id", str(new_id())))


class OperatorPagesMiddleware:
    """Allows eval and inline styles on operator pages only, because their library needs them."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.path.startswith(OPERATORS):
            vars(response)["_csp_update"] = {"script-src": ["'unsafe-eval'"], "style-src": ["'unsafe-inline'"]}
        return response
