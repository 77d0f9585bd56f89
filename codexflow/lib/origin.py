"""Whether a page of ours asks, for what does not go through Django's own check."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host


def is_own_origin(scope: Mapping[str, Any]) -> bool:
    """Whether the page that asks is one of ours: browsers send cookies along for any page (CSWSH).

    Like Django's own check of forms, with the port. A client without an origin is no browser, and has no session
    that it did not bring itself.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    origin = headers.get(b"origin")
    if not validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS):
        return False
    if origin is None:
        return True
    text = origin.decode("latin-1")
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    scheme = "https" if scope.get("scheme") in ("wss", "https") else "http"
    return (parts.scheme, parts.netloc) == (scheme, host) or text in settings.CSRF_TRUSTED_ORIGINS
