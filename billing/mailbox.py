"""Mailboxes behind e-mail addresses, for what is granted once per person. Pure.

An address can be written in many ways that all reach one mailbox. Only a keyed hash of the mailbox is stored, so that
it can be recognized after the account, with its address, has been deleted.
"""

import contextlib
import hashlib
import hmac
import unicodedata

_PURPOSE = b"billing.free_credit:"
# Domains of one provider, and those whose local part may have dots anywhere.
_SAME_DOMAIN = {"googlemail.com": "gmail.com"}
_IGNORES_DOTS = frozenset({"gmail.com"})


def mailbox_of(address: str) -> str:
    """Return the mailbox of an address: without case, tag (`+...`), Gmail's dots and the ways to write a domain."""
    local, _, domain = _folded(address).rpartition("@")
    domain = domain.rstrip(".")
    with contextlib.suppress(UnicodeError):  # what is no domain of the DNS stays as it is written
        domain = domain.encode("idna").decode()
    domain = _SAME_DOMAIN.get(domain, domain)
    local = local.strip('"')
    # An address may begin with a plus: a tag without a mailbox before it is the mailbox.
    name = local.partition("+")[0] or local
    if domain in _IGNORES_DOTS:
        name = name.replace(".", "") or name
    return f"{name}@{domain}"


def mailbox_digest(address: str, secret: str) -> bytes:
    """Keyed hash of an address's mailbox, under a key of its own that is derived from `secret`."""
    key = hmac.digest(secret.encode(), _PURPOSE, hashlib.sha256)
    return hmac.digest(key, mailbox_of(address).encode(), hashlib.sha256)


def _folded(text: str) -> str:
    """Fold case and compatible characters, such as full-width letters; invisible ones are left out."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(char for char in folded if unicodedata.category(char) not in ("Cf", "Cc") and not char.isspace())
