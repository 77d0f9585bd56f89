"""Mail backend: Django's SMTP, with one deadline for a whole conversation."""

import contextlib
import smtplib
from collections.abc import Sequence
from typing import Any

from django.core.cache import cache
from django.core.mail import EmailMessage
from django.core.mail.backends import smtp
from redis import RedisError
from typing_extensions import override

from codexflow.lib.clock import monotonic_s

FAILED, FAILED_FOR_S = "mail:failed", 86_400
# A page waits this long at most; Django's timeout alone bounds each of a conversation's ten steps.
DEADLINE_S = 10.0


class _Deadline(smtplib.SMTP):
    """SMTP connection that fails with TimeoutError once DEADLINE_S have passed since it was opened."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._ends_s = monotonic_s() + DEADLINE_S
        super().__init__(*args, **kwargs)

    @override
    def send(self, s: Any) -> None:
        self._limit()
        super().send(s)

    @override
    def getreply(self) -> tuple[int, bytes]:
        self._limit()
        return super().getreply()

    def _limit(self) -> None:
        left_s = self._ends_s - monotonic_s()
        if left_s <= 0:
            self.close()
            raise TimeoutError("The mail server is too slow.")
        if self.sock is not None and isinstance(self.timeout, int | float):
            self.sock.settimeout(min(left_s, self.timeout))


class _TlsDeadline(_Deadline, smtplib.SMTP_SSL):
    """The same, with TLS from the first byte."""


def last_mail_error() -> str | None:
    """Name of the error with which the last mail of a day was refused; None: it was taken, or there was none."""
    with contextlib.suppress(RedisError, OSError):
        found: str | None = cache.get(FAILED)
        return found
    return None


class EmailBackend(smtp.EmailBackend):
    """Sends mail through the server of EMAIL_URL, and notes for operators whether it takes them."""

    @override
    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        try:
            sent = super().send_messages(email_messages)
        except smtplib.SMTPRecipientsRefused:
            raise  # an address that there is not: nothing is wrong with the server
        except (smtplib.SMTPException, OSError) as exc:
            # No text: a server's reply may have an address in it.
            _note(type(exc).__name__)
            raise
        _note(None)
        return sent

    @property
    @override
    def connection_class(self) -> type[smtplib.SMTP]:
        return _TlsDeadline if self.use_ssl else _Deadline


def _note(error: str | None) -> None:
    with contextlib.suppress(RedisError, OSError):
        if error is None:
            cache.delete(FAILED)
        else:
            cache.set(FAILED, error, FAILED_FOR_S)
