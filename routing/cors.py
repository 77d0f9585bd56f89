"""Cross-origin requests: pages of allowed origins may call the API with a key. Pure.

No credentials are allowed, only headers: a browser sends no cookie, so the origin of a page gives it nothing.
"""

from collections.abc import Collection

from codexflow.lib.asgi import Header

ANY = "*"
# How long a browser may remember a permission.
MAX_AGE_S = 600
METHODS = b"GET, HEAD, POST, OPTIONS"
_EXPOSED = (
    b"retry-after, x-request-id, request-id, x-cfx-request-id, x-cfx-stage, x-cfx-stage-reason, x-cfx-model,"
    b" x-cfx-planner, x-cfx-counted-tokens, x-cfx-dropped, x-cfx-degraded, x-ratelimit-limit, x-ratelimit-remaining,"
    b" x-ratelimit-reset, x-should-retry"
)
_VARY: Header = (b"vary", b"origin")


def response_headers(origin: bytes, allowed: Collection[str]) -> list[Header]:
    """Headers of a response to a page; `Vary` alone where its origin is not allowed."""
    if not is_allowed(origin, allowed):
        return [_VARY]
    return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED), _VARY]


def preflight_headers(origin: bytes, requested_headers: bytes, allowed: Collection[str]) -> list[Header]:
    """Headers of the response to a browser's question before the request itself."""
    if not is_allowed(origin, allowed):
        return [_VARY]
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", requested_headers or b"authorization, content-type, x-api-key"),
        (b"access-control-max-age", b"%d" % MAX_AGE_S),
        _VARY,
    ]


def is_allowed(origin: bytes, allowed: Collection[str]) -> bool:
    """Return whether a page of this origin may call the API."""
    return ANY in allowed or origin.decode("latin-1").lower() in allowed
