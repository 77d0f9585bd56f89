"""Secrets that must be readable again, encrypted at rest under AUTH_SECRET. A ciphertext carries the id of its key.

They are those of authenticator apps and of webhooks, each under a key of its purpose. While AUTH_SECRET_PREVIOUS is
set, both secrets decrypt, and `rotate` re-encrypts what the older one has encrypted.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from allauth.mfa.models import Authenticator
from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.db import models, transaction

from accounts.models import WebhookEndpoint

MFA = "accounts.mfa"
WEBHOOKS = "accounts.webhooks"
# What of an authenticator's data is encrypted, by its type.
ENCRYPTED_FIELDS = {Authenticator.Type.TOTP: "secret", Authenticator.Type.RECOVERY_CODES: "seed"}


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of secrets, by the key that they are encrypted with."""

    current: int = 0
    previous: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a secret is stored: its row, and how to read and to replace it there. Empty: there is none."""

    row: models.Model
    purpose: str
    read: Callable[[Any], str]
    write: Callable[[Any, str], None]


class CannotDecrypt(Exception):
    """No key that is set decrypts this."""


def encrypt(text: str, *, purpose: str) -> str:
    """Encrypt under the current key."""
    secret = settings.SECRET_KEY
    return f"{key_id(secret)}:{_fernet(secret, purpose).encrypt(text.encode()).decode()}"


def decrypt(ciphertext: str, *, purpose: str) -> str:
    """Decrypt with the key that the ciphertext names, or, without a name, with whichever fits. Raises CannotDecrypt."""
    named, sep, token = ciphertext.rpartition(":")
    for secret in _secrets():
        if sep and named != key_id(secret):
            continue
        try:
            return _fernet(secret, purpose).decrypt(token.encode()).decode()
        except InvalidToken:
            continue
    raise CannotDecrypt("encrypted under another AUTH_SECRET")


def key_id(secret: str) -> str:
    """Return a short name of a key, which tells nothing of it."""
    return hashlib.sha256(b"accounts.mfa.id:" + secret.encode()).hexdigest()[:8]


def count_secrets() -> Counts:
    """Decrypt everything, and count by key."""
    found = {"current": 0, "previous": 0, "unreadable": 0}
    for place in _places():
        found[_state_of(place.read(place.row), place.purpose)] += 1
    return Counts(**found)


def rotate() -> Counts:
    """Re-encrypt what is not under the current key, each in its own transaction. Returns what was there before."""
    before = count_secrets()
    for place in _places():
        with transaction.atomic():
            row = type(place.row)._default_manager.select_for_update().filter(pk=place.row.pk).first()
            ciphertext = "" if row is None else place.read(row)
            if row is not None and ciphertext and _state_of(ciphertext, place.purpose) == "previous":
                place.write(row, encrypt(decrypt(ciphertext, purpose=place.purpose), purpose=place.purpose))
                row.save()
    return before


def _state_of(ciphertext: str, purpose: str) -> str:
    try:
        decrypt(ciphertext, purpose=purpose)
    except CannotDecrypt:
        return "unreadable"
    return "current" if ciphertext.startswith(f"{key_id(settings.SECRET_KEY)}:") else "previous"


def _places() -> Iterator[_Place]:
    for row in Authenticator.objects.filter(type__in=ENCRYPTED_FIELDS).order_by("pk"):
        yield _Place(row, MFA, _authenticator_secret, _set_authenticator_secret)
    for endpoint in WebhookEndpoint.objects.order_by("pk"):
        for name in ("sealed_secret", "sealed_secret_before"):
            if getattr(endpoint, name):
                yield _Place(endpoint, WEBHOOKS, _getter(name), _setter(name))


def _authenticator_secret(row: Any) -> str:
    return str(row.data.get(ENCRYPTED_FIELDS[row.type], ""))


def _set_authenticator_secret(row: Any, ciphertext: str) -> None:
    row.data = {**row.data, ENCRYPTED_FIELDS[row.type]: ciphertext}


def _getter(name: str) -> Callable[[Any], str]:
    return lambda row: str(getattr(row, name))


def _setter(name: str) -> Callable[[Any, str], None]:
    return lambda row, ciphertext: setattr(row, name, ciphertext)


def _secrets() -> list[str]:
    return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]


def _fernet(secret: str, purpose: str) -> Fernet:
    digest = hashlib.sha256(purpose.encode() + b":" + secret.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))
