"""The operators' pages come from a library whose scripts need a weaker policy than ours."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

OPERATORS = "/ops/"


class OperatorPagesMiddleware:
    """Allow there, and only there, evaluated scripts and inline styles."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.path.startswith(OPERATORS):
            vars(response)["_csp_update"] = {"script-src": ["'unsafe-eval'"], "style-src": ["'unsafe-inline'"]}
        return response
