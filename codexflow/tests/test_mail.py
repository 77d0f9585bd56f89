"""EMAIL_URL, and mail that is kept instead of sent."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core import mail as sent
from django.core.mail import EmailMessage
from django.test import Client
from django.urls import reverse

from codexflow.dev import mail
from codexflow.env import Env, EnvError
from codexflow.lib.mail import MailServer, parse_email_url
from tests.support.cast import Cast


def test_both_kinds_of_address() -> None:
    assert parse_email_url("smtp://ada:p%40ss@mail.example.org?from=CodexFlow <no-reply@example.org>") == MailServer(
        host="mail.example.org",
        port=587,
        user="ada",
        password="p@ss",
        is_starttls=True,
        sender="CodexFlow <no-reply@example.org>",
    )
    plain = parse_email_url("smtp://mail.internal:25?tls=off&from=a@b.c")
    assert (plain.port, plain.is_tls, plain.is_starttls) == (25, False, False)
    safe = parse_email_url("smtps://a%40b.c:x@mail.example.org")
    assert (safe.port, safe.is_tls, safe.is_starttls, safe.sender) == (465, True, False, "a@b.c")


@pytest.mark.parametrize(
    "text",
    ["mail.example.org", "http://a@b.c", "smtp://?from=a@b.c", "smtp://host", "smtp://host:port?from=a@b.c",
     "smtp://host?from=a@b.c&tls=maybe", "smtp://host?from=a@b.c&x=1"],
)  # fmt: skip
def test_a_wrong_address_is_named_without_its_password(text: str) -> None:
    with pytest.raises(EnvError, match="EMAIL_URL"):
        Env.read({"CFX_ENV": "development", "EMAIL_URL": text})
    with pytest.raises(EnvError) as caught:
        Env.read({"CFX_ENV": "development", "EMAIL_URL": "ftp://ada:hunter22@host"})
    assert "hunter22" not in str(caught.value)


def test_kept_mail_is_shown_to_this_machine_only(client: Client, cast: Cast, settings: Any, tmp_path: Path) -> None:
    settings.ENV = replace(settings.ENV, home=tmp_path)
    mail.EmailBackend().send_messages(
        [EmailMessage("Your code", "It is 123 456, İğdır.", "a@b.c", ["ada@example.org"])]
    )
    text = client.get("/dev/mail/").content.decode()
    assert "It is 123 456, İğdır." in text
    assert client.get("/dev/mail/", REMOTE_ADDR="10.1.2.3").status_code == 404


def test_only_the_newest_mails_are_kept(settings: Any, tmp_path: Path) -> None:
    settings.ENV = replace(settings.ENV, home=tmp_path)
    for n in range(mail.MAX_STORED + 5):
        mail.EmailBackend().send_messages([EmailMessage(f"{n}", "x", "a@b.c", ["b@b.c"])])
    kept = mail.stored()
    assert len(kept) == mail.MAX_STORED
    assert kept[0].subject == str(mail.MAX_STORED + 4)


def test_a_notice_says_the_time_with_its_zone_and_what_it_came_from(cast: Cast) -> None:
    cast.ada.timezone, cast.ada.language = "Europe/Istanbul", "tr"
    cast.ada.set_password("correct horse battery")
    cast.ada.save()
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
    client = Client(headers={"user-agent": firefox})
    client.post(reverse("account_reset_password"), {"email": cast.ada.email})
    code = re.findall(r"^[A-Z0-9]{4}-[A-Z0-9]{4}$", str(sent.outbox[-1].body), re.MULTILINE)[0]
    client.post(reverse("account_confirm_password_reset_code"), {"code": code})
    chosen = {"password1": "another horse battery", "password2": "another horse battery"}
    client.post(reverse("account_complete_password_reset"), chosen)
    notice = sent.outbox[-1]
    assert notice.subject == "Parolanız sıfırlandı"
    assert "Parolanız sıfırlandı." in notice.body
    assert "(UTC+0300)" in notice.body
    assert "Firefox · Linux" in notice.body
    for mail_text in (each.body for each in sent.outbox):
        assert "CodexFlow\n" in str(mail_text)
        assert "testserver'" not in str(mail_text), "a suffix on the name of a host"
