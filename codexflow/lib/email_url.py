"""EMAIL_URL: the mail server and the sender, as one URL. Pure."""

from dataclasses import dataclass, field
from email.utils import parseaddr
from urllib.parse import parse_qs, unquote, urlsplit

_PORTS = {"smtp": 587, "smtps": 465}


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """An SMTP server and the sender of mail through it."""

    host: str
    port: int
    user: str = ""
    password: str = field(repr=False, default="")
    is_tls: bool = False  # from the first byte (smtps)
    is_starttls: bool = False
    sender: str = ""


def parse_email_url(text: str) -> MailServer:
    """Parse `smtp://user:password@host:587?from=Name <a@b.c>`, or smtps:// for TLS from the first byte.

    smtp:// switches to TLS after the greeting (STARTTLS) unless `?tls=off`. Raises ValueError, without the password.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is not an address such as smtps://user:password@host:465") from None
    if parts.scheme not in _PORTS:
        raise ValueError("must begin with smtp:// or smtps://")
    if not parts.hostname:
        raise ValueError("names no host")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = sorted(set(options) - {"from", "tls"})
    if unknown:
        raise ValueError(f"has unknown options: {', '.join(unknown)}; known are from and tls")
    if options.get("tls", "on") not in ("on", "off"):
        raise ValueError("has tls neither on nor off")
    user = unquote(parts.username or "")
    sender = options.get("from") or (user if "@" in user else "")
    if "@" not in parseaddr(sender)[1]:
        raise ValueError("needs a sender: add ?from=name@example.org")
    return MailServer(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        user=user,
        password=unquote(parts.password or ""),
        is_tls=parts.scheme == "smtps",
        is_starttls=parts.scheme == "smtp" and options.get("tls", "on") == "on",
        sender=sender,
    )
