"""Routes of everything that Django serves; `/v1/*` and `/health*` never get here (see asgi.py)."""

from django.urls import URLPattern, URLResolver

urlpatterns: list[URLPattern | URLResolver] = []
