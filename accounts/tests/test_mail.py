"""Mail to users."""

from typing import Any

import pytest
from django.core import mail as sent

from accounts import mail
from codexflow.env import REPOSITORY

TEMPLATES = REPOSITORY / "templates" / "emails"
NAMES = sorted({path.name.rpartition("-")[0] for path in TEMPLATES.iterdir()})


@pytest.mark.parametrize(("language", "subject"), [("en", "deleted"), ("tr", "silindi")])
def test_a_mail_is_in_the_language_asked_for(language: str, subject: str) -> None:
    assert mail.send("account_deleted", "ada@example.org", language=language)
    (message,) = sent.outbox
    assert message.to == ["ada@example.org"]
    assert subject in message.subject


def test_a_mail_that_the_server_does_not_take_is_logged(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_PORT = 1  # no server listens there
    assert not mail.send("account_deleted", "ada@example.org", language="en")
    assert "mail.failed" in caplog.messages


@pytest.mark.parametrize("name", NAMES)
def test_a_mail_has_subject_and_body_and_somebody_sends_it(name: str) -> None:
    for part in ("subject", "body"):
        assert (TEMPLATES / f"{name}-{part}.txt").is_file(), f"templates/emails/{name}-{part}.txt is missing"
    source = "".join(
        path.read_text()
        for app in ("accounts", "billing", "keys", "logs")
        for path in (REPOSITORY / app).rglob("*.py")
        if "tests" not in path.parts
    )
    assert f'"{name}"' in source, f"nobody sends {name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_mail_is_translated(name: str) -> None:
    for part in ("subject", "body"):
        text = (TEMPLATES / f"{name}-{part}.txt").read_text()
        assert "{% translate" in text or "{% blocktranslate" in text, (
            f"{name}-{part}.txt has text that is not translated"
        )
