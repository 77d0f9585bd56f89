"""Routes of everything that Django serves; `/v1/*` and `/health*` never get here (see asgi.py).

The management API is below `/api/`; pages are everywhere else.
"""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularJSONAPIView

from codexflow.dev import mail
from codexflow.lib.admin import site
from codexflow.pages import views
from codexflow.settings import ENV
from keys.api import KeysView, KeyView
from logs.api import RequestsView, RequestView, UsageView

# Only the web needs the operators' pages; workers and commands do without.
admin.autodiscover()

# The management API describes itself: GET /api/v1/schema.
api: list[URLPattern | URLResolver] = [
    path("api/v1/schema", SpectacularJSONAPIView.as_view(), name="api-schema"),
    path("api/v1/keys", KeysView.as_view(), name="api-keys"),
    path("api/v1/keys/<uuid:key_id>", KeyView.as_view(), name="api-key"),
    path("api/v1/requests", RequestsView.as_view(), name="api-requests"),
    path("api/v1/usage", UsageView.as_view(), name="api-usage"),
    path("api/v1/requests/<uuid:request_id>", RequestView.as_view(), name="api-request"),
]

pages: list[URLPattern | URLResolver] = [
    path("", views.landing, name="landing"),
    path("", include("accounts.urls")),
    path("", include("logs.urls")),
    path("", include("keys.urls")),
    path("", include("billing.urls")),
    path("accounts/", include("allauth.urls")),
    path("ops/", site.urls),
    *([] if ENV.is_production else [path("dev/mail/", mail.page, name="dev-mail")]),
]

urlpatterns = [*api, *pages]
