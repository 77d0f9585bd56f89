"""Origin check for connections that bypass Django's CSRF check."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host


def is_own_origin(scope: Mapping[str, Any]) -> bool:
    """Return whether the request comes from a page of this site.

    Prevents cross-site WebSocket hijacking: browsers send cookies with requests from any page. Compares as Django's
    CSRF check does, port included. A client without an Origin header is not a browser and carries only cookies that
    it was given on purpose.
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
