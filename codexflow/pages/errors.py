"""Pages for what went wrong, each with the id that the log knows it by."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from codexflow.pages.middleware import request_id_of


def too_many(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Somebody tries something too often: signing in, codes, mails."""
    response = render(request, "429.html", status=429)
    response["Retry-After"] = "60"
    return response


def failed(request: HttpRequest) -> HttpResponse:
    """Needs neither database nor session nor context: they may be what failed."""
    return HttpResponse(render_to_string("500.html", {"request_id": request_id_of(request)}), status=500)
