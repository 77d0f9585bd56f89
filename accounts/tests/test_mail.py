"""Mail to users."""

from typing import Any

import pytest
from django.core import mail as sent

from accounts import mail


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
