"""Mail backend: Django's SMTP, with one deadline for a whole conversation."""

import smtplib
from typing import Any

from django.core.mail.backends import smtp
from typing_extensions import override

from codexflow.lib.clock import monotonic_s

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


class EmailBackend(smtp.EmailBackend):
    """Sends mail through the server of EMAIL_URL."""

    @property
    @override
    def connection_class(self) -> type[smtplib.SMTP]:
        return _TlsDeadline if self.use_ssl else _Deadline
