"""GitHub and Google as people meet them who sign in by them: one small server on loopback.

It speaks as much of OAuth as we use, and is as strict as they are: client, secret, redirect address, a code that works
once, and the proof key (PKCE) that belongs to it.
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
    """Who is signed in over there."""

    number: int = 7001
    name: str = "Grace Hopper"
    login: str = "grace"
    # Address, and whether it is proved; the first one is the primary.
    emails: list[tuple[str, bool]] = field(default_factory=lambda: [("Grace@Example.org", True)])


class StandIn:
    """The server, and what a test may decide about it."""

    def __init__(self) -> None:
        self.profile = Profile()
        self.refuses = ""  # what the person's answer is, such as access_denied
        self.is_broken = False
        self.audience = PROVIDERS["CFX_GOOGLE_CLIENT_ID"]
        self.asked: list[dict[str, str]] = []
        # Whatever must never be seen elsewhere.
        self.secrets = {PROVIDERS["CFX_GITHUB_CLIENT_SECRET"], PROVIDERS["CFX_GOOGLE_CLIENT_SECRET"]}
        self._codes: dict[str, dict[str, str]] = {}
        self._tokens: set[str] = set()
        stand_in = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802 - http.server asks for this name
                stand_in.answer(self, "")

            def do_POST(self) -> None:  # noqa: N802 - http.server asks for this name
                stand_in.answer(self, self.rfile.read(int(self.headers["Content-Length"])).decode())

        self._server = LoopbackServer(Handler)
        self.url = self._server.url

    def stop(self) -> None:
        self._server.close()

    def answer(self, handler: BaseHTTPRequestHandler, body: str) -> None:
        where = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(body or where.query).items()}
        _, provider, what = where.path.split("/")
        if what == "authorize":
            status, headers, content = 302, {"Location": self._authorize(provider, query)}, b""
        else:
            answered: Any = self._token(provider, query) if what == "token" else self._told(what, handler)
            status, headers = (200 if answered is not None else 400), {"Content-Type": "application/json"}
            content = json.dumps(answered if answered is not None else {"error": "bad_verification_code"}).encode()
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
        is_proved = base64.urlsafe_b64encode(digest).decode().rstrip("=") == asked.get("code_challenge")
        known = tuple(PROVIDERS[f"CFX_{provider.upper()}_CLIENT_{part}"] for part in ("ID", "SECRET"))
        if not is_proved or asked["code_challenge_method"] != "S256":
            return None
        if (form["client_id"], form["client_secret"]) != known:
            return None
        token = secrets.token_urlsafe(24)
        self._tokens.add(token)
        self.secrets |= {token, form["code_verifier"]}
        told = {"access_token": token, "token_type": "bearer"}
        return told | ({"id_token": self._id_token()} if provider == GOOGLE else {})

    def _id_token(self) -> str:
        email, is_proved = self.profile.emails[0]
        claims = {
            "iss": "https://accounts.google.com",
            "aud": self.audience,
            "sub": str(self.profile.number),
            "exp": int(now_s()) + 600,
            "email": email,
            "email_verified": is_proved,
            "given_name": self.profile.name.partition(" ")[0],
            "family_name": self.profile.name.partition(" ")[2],
            "picture": "https://lh3.googleusercontent.com/a/private",
        }
        return jwt.encode(claims, "k" * 32, algorithm="HS256")

    def _told(self, what: str, handler: BaseHTTPRequestHandler) -> Any:
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
            {"email": email, "verified": is_proved, "primary": n == 0}
            for n, (email, is_proved) in enumerate(who.emails)
        ]


@contextmanager
def standing_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A server in place of both providers. The one place that knows where allauth keeps their addresses."""
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
