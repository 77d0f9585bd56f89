"""Mail backend of development: stores mails in a folder, the log and the page `/dev/mail`; sends none."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage as Parsed
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.message import EmailMessage
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from typing_extensions import override

from codexflow.lib.ids import new_id, started_at

logger = logging.getLogger(__name__)

MAX_STORED = 50
_LOOPBACK = ("127.0.0.1", "::1")


def folder() -> Path:
    """Folder of the stored mails: one file each, named by time."""
    return Path(settings.ENV.home) / "mail"


class EmailBackend(BaseEmailBackend):
    """Stores mails as files and deletes all but the newest."""

    @override
    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        place = folder()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for message in email_messages:
            path = place / f"{new_id()}.eml"
            path.touch(mode=0o600)
            path.write_bytes(message.message().as_bytes())
            logger.info(
                "mail.kept",
                extra={"to": message.to, "subject": message.subject, "text": str(message.body), "see": "/dev/mail"},
            )
        for path in sorted(place.glob("*.eml"))[:-MAX_STORED]:
            path.unlink(missing_ok=True)
        return len(email_messages)


@dataclass(frozen=True, slots=True)
class StoredMail:
    """A stored mail, as the page shows it."""

    at: datetime
    to: str
    subject: str
    text: str


def stored() -> list[StoredMail]:
    """Read the stored mails, newest first."""
    return [_read(path) for path in sorted(folder().glob("*.eml"), reverse=True)]


def _read(path: Path) -> StoredMail:
    message = message_from_bytes(path.read_bytes(), _class=Parsed, policy=policy.default)
    body = message.get_body(("plain",))
    return StoredMail(
        started_at(UUID(path.stem)),
        str(message["To"]),
        str(message["Subject"]),
        str(body.get_content()) if body is not None else "",
    )


def page(request: HttpRequest) -> HttpResponse:
    """Show the stored mails to callers on loopback only: they hold sign-in codes."""
    if settings.ENV.is_production or request.META.get("REMOTE_ADDR", "") not in _LOOPBACK:
        raise Http404
    return render(request, "dev/mail.html", {"mails": stored()})
