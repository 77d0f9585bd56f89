"""Pages while the mail server is away: nothing is lost, and no page fails."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.test import Client
from django.urls import reverse

from accounts import mail, smtp
from accounts.models import Invitation, User
from billing.models import Account, Plan
from billing.selectors import account_of
from tests.support.cast import Cast

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
FORM = {"email": "grace@example.org", "password1": PASSWORD}
AWAY = "The mail could not be sent."


class Server:
    """A mail server that misbehaves in one way, on a real socket."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self._open: list[socket.socket] = []
        if kind == "closed":
            self.socket.close()
        else:
            threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for each in (*self._open, self.socket):
            with contextlib.suppress(OSError):
                each.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self._open.append(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        if self.kind == "hangs":
            return
        with contextlib.suppress(OSError), connection, connection.makefile("rwb") as wire:

            def say(line: str) -> None:
                wire.write(f"{line}\r\n".encode())
                wire.flush()

            say("554 no service" if self.kind == "5xx" else "220 ready")
            for line in wire:
                verb = line[:4].upper()
                if verb == b"QUIT" or self.kind == "drops":
                    return
                say("550 no such user" if verb == b"RCPT" and self.kind == "rejects" else "250 ok")


@pytest.fixture(params=["closed", "hangs", "drops", "5xx", "rejects"])
def server(request: pytest.FixtureRequest, settings: Any) -> Iterator[Server]:
    server = Server(request.param)
    settings.EMAIL_BACKEND = "accounts.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", server.port, 0.2
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    settings.ACCOUNT_RATE_LIMITS = False
    yield server
    server.close()


@pytest.mark.usefixtures("server", "cast")
def test_sign_up_keeps_the_account_and_says_the_same_for_a_known_address() -> None:
    new = Client().post(reverse("account_signup"), FORM, follow=True)
    taken = Client().post(reverse("account_signup"), {**FORM, "email": "ada@example.org"}, follow=True)
    assert User.objects.get(email="grace@example.org").organizations.count() == 1
    assert [each.status_code for each in (new, taken)] == [200, 200]
    assert new.redirect_chain == taken.redirect_chain
    for page in (new, taken):
        assert AWAY in page.content.decode()


def test_the_code_can_be_had_once_mail_is_back(server: Server, settings: Any, mailoutbox: list[Any]) -> None:
    visitor = Client()
    visitor.post(reverse("account_signup"), FORM)
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    visitor.post(reverse("account_email_verification_sent"), {"action": "resend"})
    assert [each.to for each in mailoutbox] == [["grace@example.org"]], server.kind


@pytest.mark.usefixtures("server", "cast")
@pytest.mark.parametrize("address", ["ada@example.org", "nobody@example.org"])
def test_a_reset_says_so(address: str) -> None:
    page = Client().post(reverse("account_reset_password"), {"email": address}, follow=True)
    assert (page.status_code, AWAY in page.content.decode()) == (200, True)


@pytest.mark.usefixtures("server")
def test_a_changed_password_is_changed(cast: Cast) -> None:
    cast.ada.set_password(PASSWORD)
    cast.ada.save()
    EmailAddress.objects.create(user=cast.ada, email=cast.ada.email, verified=True, primary=True)
    page = Client()
    page.force_login(cast.ada)
    form = {"oldpassword": PASSWORD, "password1": "another horse battery", "password2": "another horse battery"}
    assert page.post(reverse("account_change_password"), form).status_code == 302
    cast.ada.refresh_from_db()
    assert cast.ada.check_password("another horse battery")


@pytest.mark.usefixtures("server")
def test_an_added_address_waits_for_its_code(cast: Cast) -> None:
    EmailAddress.objects.create(user=cast.ada, email=cast.ada.email, verified=True, primary=True)
    page = Client()
    page.force_login(cast.ada)
    response = page.post(reverse("account_email"), {"action_add": "", "email": "ada2@example.org"}, follow=True)
    assert response.status_code == 200


@pytest.mark.usefixtures("server")
def test_an_invitation_can_be_handed_over(cast: Cast) -> None:
    account_of(cast.organization)
    Account.objects.filter(organization=cast.organization).update(plan=Plan.objects.get(slug="pro"))
    page = Client()
    page.force_login(cast.ada)
    where = reverse("invite", args=[cast.organization.slug])
    response = page.post(where, {"email": "nina@example.org", "role": "developer"}, follow=True)
    assert response.status_code in (200, 204), response.content[:500]
    assert Invitation.objects.filter(email="nina@example.org").exists()
    assert not mail.send("account_deleted", "ada@example.org", language="en")


def test_operators_see_that_the_last_mail_was_not_taken(server: Server) -> None:
    smtp._note(None)
    assert smtp.last_mail_error() is None
    assert not mail.send("account_deleted", "ada@example.org", language="en")
    found = smtp.last_mail_error()
    if server.kind == "rejects":
        assert found is None, "the address is wrong, not the server"
        return
    assert found
    assert "@" not in found
    server.close()
    smtp._note(None)
    assert smtp.last_mail_error() is None


def test_a_conversation_has_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers every step at the last moment keeps a page no longer than the deadline."""
    server, now_s = Server("well"), [0.0]
    monkeypatch.setattr(smtp, "monotonic_s", lambda: now_s[0])
    backend = smtp.EmailBackend(host="127.0.0.1", port=server.port, timeout=5, username="", use_tls=False)
    connection = backend.connection_class("127.0.0.1", server.port, timeout=5)
    assert connection.noop()[0] == 250
    now_s[0] = smtp.DEADLINE_S + 0.1
    with pytest.raises(TimeoutError):
        connection.noop()
    server.close()
