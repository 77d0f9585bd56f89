"""Permissions for pages of other origins."""

import pytest

from routing.cors import preflight_headers, response_headers

ALLOWED = ("https://app.example.com", "http://localhost:3000")


@pytest.mark.parametrize("origin", [b"https://app.example.com", b"http://localhost:3000", b"HTTPS://app.example.com"])
def test_an_allowed_origin_may_ask_and_read(origin: bytes) -> None:
    assert dict(response_headers(origin, ALLOWED))[b"access-control-allow-origin"] == origin
    asked = dict(preflight_headers(origin, b"authorization,x-stainless-lang", ALLOWED))
    assert asked[b"access-control-allow-origin"] == origin
    assert asked[b"access-control-allow-headers"] == b"authorization,x-stainless-lang"
    assert b"access-control-allow-credentials" not in asked


@pytest.mark.parametrize("origin", [b"https://evil.example", b"null", b"", b"https://app.example.com.evil", b"\xff"])
def test_every_other_origin_gets_nothing(origin: bytes) -> None:
    for headers in (response_headers(origin, ALLOWED), preflight_headers(origin, b"a", ALLOWED)):
        assert headers == [(b"vary", b"origin")]
    assert dict(response_headers(origin, ("*",)))[b"access-control-allow-origin"] == origin
