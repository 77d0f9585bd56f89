"""What every page has: an id of its own; and what the operators' pages need."""

from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers

from codexflow.lib.ids import new_id

OPERATORS = "/ops/"


class RequestIdMiddleware:
    """An id for the answer, its error page and its lines in the log."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with structlog.contextvars.bound_contextvars(request_id=request_id_of(request)):
            response = self.get_response(request)
        response.headers.setdefault("X-CFX-Request-Id", request_id_of(request))
        if response.headers.get("Content-Type", "").startswith("text/html"):
            # Pages and their parts have one address: going back must not bring a part out of the browser's cache.
            patch_vary_headers(response, ["HX-Request"])
        return response


def request_id_of(request: HttpRequest) -> str:
    """The request's id, made when first asked for."""
    return str(vars(request).setdefault("cfx_request_id", str(new_id())))


class OperatorPagesMiddleware:
    """Allow there, and only there, evaluated scripts and inline styles: their library needs them."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.path.startswith(OPERATORS):
            vars(response)["_csp_update"] = {"script-src": ["'unsafe-eval'"], "style-src": ["'unsafe-inline'"]}
        return response
