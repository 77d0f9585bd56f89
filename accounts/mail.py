"""Mail to users, in their language. Times in mails are in UTC and labelled so."""

import logging
from datetime import UTC
from smtplib import SMTPException
from typing import Any

from django.core.mail import send_mail
from django.template.loader import render_to_string
from django.utils import timezone, translation

logger = logging.getLogger(__name__)

# A server that is away, hangs or refuses; ValueError for an address that no mail can have.
FAILURES = (SMTPException, OSError, ValueError)


def send(name: str, to: str, *, language: str, **facts: Any) -> bool:
    """Send the mail `templates/emails/<name>`. Returns whether the server accepted it; a failure is logged."""
    with translation.override(language), timezone.override(UTC):
        subject = " ".join(render_to_string(f"emails/{name}-subject.txt", facts).split())
        text = render_to_string(f"emails/{name}-body.txt", facts)
        try:
            send_mail(subject, text.strip() + "\n", None, [to])
        except FAILURES:
            logger.exception("mail.failed", extra={"mail": name})
            return False
    return True
