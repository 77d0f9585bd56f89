"""EMAIL_URL."""

import pytest

from codexflow.env import Env, EnvError
from codexflow.lib.email_url import MailServer, parse_email_url


def test_smtp_and_smtps_urls_are_parsed() -> None:
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
def test_an_invalid_url_is_reported_without_its_password(text: str) -> None:
    with pytest.raises(EnvError, match="EMAIL_URL"):
        Env.read({"CFX_ENV": "development", "EMAIL_URL": text})
    with pytest.raises(EnvError) as caught:
        Env.read({"CFX_ENV": "development", "EMAIL_URL": "ftp://ada:hunter22@host"})
    assert "hunter22" not in str(caught.value)
