"""Routes of everything that Django serves; `/v1/*` and `/health*` never get here (see asgi.py)."""

from django.urls import URLPattern, URLResolver, path

from logs.api import RequestView

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/requests/<uuid:request_id>", RequestView.as_view(), name="api-request"),
]
