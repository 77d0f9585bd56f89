"""Error pages, each with the request id that the log has."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from codexflow.pages.middleware import request_id_of


def too_many(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """429 for rate-limited forms: sign-in, codes, mails."""
    response = render(request, "429.html", status=429)
    response["Retry-After"] = "60"
    return response


def failed(request: HttpRequest) -> HttpResponse:
    """500 page. Uses neither database nor session nor context processors, because these may have failed."""
    return HttpResponse(render_to_string("500.html", {"request_id": request_id_of(request)}), status=500)
