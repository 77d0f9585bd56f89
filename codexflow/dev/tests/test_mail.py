"""Mail that development stores instead of sending."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from django.core.mail import EmailMessage
from django.test import Client

from codexflow.dev import mail
from tests.support.cast import Cast


def test_stored_mail_is_shown_on_loopback_only(client: Client, cast: Cast, settings: Any, tmp_path: Path) -> None:
    settings.ENV = replace(settings.ENV, home=tmp_path)
    mail.EmailBackend().send_messages(
        [EmailMessage("Your code", "It is 123 456, İğdır.", "a@b.c", ["ada@example.org"])]
    )
    text = client.get("/dev/mail/").content.decode()
    assert "It is 123 456, İğdır." in text
    assert client.get("/dev/mail/", REMOTE_ADDR="10.1.2.3").status_code == 404


def test_only_the_newest_mails_are_stored(settings: Any, tmp_path: Path) -> None:
    settings.ENV = replace(settings.ENV, home=tmp_path)
    for n in range(mail.MAX_STORED + 5):
        mail.EmailBackend().send_messages([EmailMessage(f"{n}", "x", "a@b.c", ["b@b.c"])])
    kept = mail.stored()
    assert len(kept) == mail.MAX_STORED
    assert kept[0].subject == str(mail.MAX_STORED + 4)
