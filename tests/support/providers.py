"""Stand-in for the OAuth servers of GitHub and Google: one small server on loopback.

It implements the part of OAuth in use and is as strict as the real ones: client, secret, redirect address, a code that
works once, and its proof key (PKCE).
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest
from allauth.socialaccount.providers.github.views import GitHubOAuth2Adapter
from allauth.socialaccount.providers.google.views import GoogleOAuth2Adapter

from codexflow.lib.clock import now_s
from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.services import PROVIDERS

GITHUB, GOOGLE = "github", "google"


@dataclass
class Profile:
    """The user who is signed in at the provider."""

    number: int = 7001
    name: str = "Grace Hopper"
    login: str = "grace"
    # Address and whether it is verified; the first one is primary.
    emails: list[tuple[str, bool]] = field(default_factory=lambda: [("Grace@Example.org", True)])


class StandIn:
    """The server, and the behaviour that a test may set."""

    def __init__(self) -> None:
        self.profile = Profile()
        self.refuses = ""  # the user's refusal, such as access_denied
        self.is_broken = False
        self.audience = PROVIDERS["CFX_GOOGLE_CLIENT_ID"]
        self.asked: list[dict[str, str]] = []
        # Values that must never appear elsewhere.
        self.secrets = {PROVIDERS["CFX_GITHUB_CLIENT_SECRET"], PROVIDERS["CFX_GOOGLE_CLIENT_SECRET"]}
        self._codes: dict[str, dict[str, str]] = {}
        self._tokens: set[str] = set()
        stand_in = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802 - http.server asks for this name
                stand_in.respond(self, "")

            def do_POST(self) -> None:  # noqa: N802 - http.server asks for this name
                stand_in.respond(self, self.rfile.read(int(self.headers["Content-Length"])).decode())

        self._server = LoopbackServer(Handler)
        self.url = self._server.url

    def stop(self) -> None:
        self._server.close()

    def respond(self, handler: BaseHTTPRequestHandler, body: str) -> None:
        where = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(body or where.query).items()}
        _, provider, what = where.path.split("/")
        if what == "authorize":
            status, headers, content = 302, {"Location": self._authorize(provider, query)}, b""
        else:
            issued: Any = self._token(provider, query) if what == "token" else self._profile(what, handler)
            status, headers = (200 if issued is not None else 400), {"Content-Type": "application/json"}
            content = json.dumps(issued if issued is not None else {"error": "bad_verification_code"}).encode()
        if self.is_broken and what != "authorize":
            status = 500
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _authorize(self, provider: str, query: dict[str, str]) -> str:
        self.asked.append(query)
        assert query["client_id"] == PROVIDERS[f"CFX_{provider.upper()}_CLIENT_ID"]
        assert query["response_type"] == "code"
        assert query["redirect_uri"].endswith(f"/accounts/{provider}/login/callback/")
        if self.refuses:
            return f"{query['redirect_uri']}?{urlencode({'error': self.refuses, 'state': query['state']})}"
        code = secrets.token_urlsafe(16)
        self.secrets.add(code)
        self._codes[code] = {**query, "provider": provider}
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def _token(self, provider: str, form: dict[str, str]) -> dict[str, str] | None:
        asked = self._codes.pop(form.get("code", ""), None)
        if asked is None or asked["provider"] != provider or form["redirect_uri"] != asked["redirect_uri"]:
            return None
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        is_verified = base64.urlsafe_b64encode(digest).decode().rstrip("=") == asked.get("code_challenge")
        known = tuple(PROVIDERS[f"CFX_{provider.upper()}_CLIENT_{part}"] for part in ("ID", "SECRET"))
        if not is_verified or asked["code_challenge_method"] != "S256":
            return None
        if (form["client_id"], form["client_secret"]) != known:
            return None
        token = secrets.token_urlsafe(24)
        self._tokens.add(token)
        self.secrets |= {token, form["code_verifier"]}
        issued = {"access_token": token, "token_type": "bearer"}
        return issued | ({"id_token": self._id_token()} if provider == GOOGLE else {})

    def _id_token(self) -> str:
        email, is_verified = self.profile.emails[0]
        claims = {
            "iss": "https://accounts.google.com",
            "aud": self.audience,
            "sub": str(self.profile.number),
            "exp": int(now_s()) + 600,
            "email": email,
            "email_verified": is_verified,
            "given_name": self.profile.name.partition(" ")[0],
            "family_name": self.profile.name.partition(" ")[2],
            "picture": "https://lh3.googleusercontent.com/a/private",
        }
        return jwt.encode(claims, "k" * 32, algorithm="HS256")

    def _profile(self, what: str, handler: BaseHTTPRequestHandler) -> Any:
        if handler.headers.get("Authorization", "").partition(" ")[2] not in self._tokens:
            return None
        who = self.profile
        if what == "user":
            return {
                "id": who.number,
                "login": who.login,
                "name": who.name,
                "email": None,
                "bio": "Not for us",
            }
        return [
            {"email": email, "verified": is_verified, "primary": n == 0}
            for n, (email, is_verified) in enumerate(who.emails)
        ]


@contextmanager
def standing_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Replace both providers by a stand-in. The only place that knows allauth's attributes for their addresses."""
    stand_in = StandIn()
    for adapter, name in ((GitHubOAuth2Adapter, GITHUB), (GoogleOAuth2Adapter, GOOGLE)):
        monkeypatch.setattr(adapter, "authorize_url", f"{stand_in.url}/{name}/authorize")
        monkeypatch.setattr(adapter, "access_token_url", f"{stand_in.url}/{name}/token")
    monkeypatch.setattr(GitHubOAuth2Adapter, "profile_url", f"{stand_in.url}/github/user")
    monkeypatch.setattr(GitHubOAuth2Adapter, "emails_url", f"{stand_in.url}/github/emails")
    monkeypatch.setattr(GoogleOAuth2Adapter, "identity_url", f"{stand_in.url}/google/identity")
    try:
        yield stand_in
    finally:
        stand_in.stop()
