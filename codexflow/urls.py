"""Routes of everything that Django serves; `/v1/*` and `/health*` never get here (see asgi.py)."""

from django.urls import URLPattern, URLResolver, path
from drf_spectacular.views import SpectacularJSONAPIView

from keys.api import KeysView, KeyView
from logs.api import RequestView

# The management API describes itself: GET /api/v1/schema.
urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/schema", SpectacularJSONAPIView.as_view(), name="api-schema"),
    path("api/v1/keys", KeysView.as_view(), name="api-keys"),
    path("api/v1/keys/<uuid:key_id>", KeyView.as_view(), name="api-key"),
    path("api/v1/requests/<uuid:request_id>", RequestView.as_view(), name="api-request"),
]
