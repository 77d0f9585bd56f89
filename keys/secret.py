"""Secrets of API keys: creation, checksum, digest.

A key is `cfx_<8 public id>_<32 secret><6 checksum>`, all base62. The checksum is the CRC-32 of everything before it:
a mistyped key is refused without a look-up, and secret scanners find real keys without false alarms. It proves
nothing about who made the key; only the digest does.
"""

import hmac
import re
import secrets
from binascii import crc32
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

PREFIX = "cfx"
PUBLIC_ID_CHARS = 8
SECRET_CHARS = 32  # 190 bits
CHECKSUM_CHARS = 6
KEY_CHARS = len(PREFIX) + 1 + PUBLIC_ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(
    rf"({PREFIX}_([0-9A-Za-z]{{{PUBLIC_ID_CHARS}}})_[0-9A-Za-z]{{{SECRET_CHARS}}})([0-9A-Za-z]{{{CHECKSUM_CHARS}}})"
)

SALT_ID_CHARS = 8
# What is digested for a salt's id. No key is this text.
_SALT_ID = b"id of the salt"

# Compared when the public id is unknown, so that an unknown key takes as long as a wrong one. No key has this digest.
DUMMY_DIGEST = bytes(sha256().digest_size)


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key. `key` is shown once and never stored."""

    public_id: str
    key: str = field(repr=False)


def mint() -> MintedKey:
    """Create a random key."""
    public_id = _random_base62(PUBLIC_ID_CHARS)
    body = f"{PREFIX}_{public_id}_{_random_base62(SECRET_CHARS)}"
    return MintedKey(public_id, with_checksum(body))


def with_checksum(body: str) -> str:
    """Append the checksum to a key's body."""
    return body + _checksum(body)


def split(text: str) -> str | None:
    """Return the public id of a well-formed key with a valid checksum; otherwise None."""
    found = _KEY.fullmatch(text)
    if found is None or _checksum(found[1]) != found[3]:
        return None
    return found[2]


# An ellipsis also as the bytes of its UTF-8, since headers are read as Latin-1.
_SHORTENED = ("…", "\u00e2\u0080\u00a6", "...", "***", "•", "\u00e2\u0080\u00a2")


def is_shortened(text: str) -> bool:
    """Return whether a text is a key as pages and logs show it, with its middle left out or masked."""
    return any(mark in text for mark in _SHORTENED)


_CUT_OFF = re.compile(rf"{PREFIX}_[0-9A-Za-z]{{{PUBLIC_ID_CHARS}}}_[0-9A-Za-z]*")


def is_cut_off(text: str) -> bool:
    """Return whether a text begins as a key does and ends too early."""
    return len(text) < KEY_CHARS and _CUT_OFF.fullmatch(text) is not None


def digest(key: str, salt: str) -> bytes:
    """Digest stored instead of the key: HMAC-SHA256 of the whole key, keyed by `salt`. 32 bytes."""
    return hmac.digest(salt.encode(), key.encode(), "sha256")


def salt_id(salt: str) -> str:
    """Id of a salt, stored beside each digest that was made with it: 8 hexadecimal digits that do not tell the salt."""
    return hmac.digest(salt.encode(), _SALT_ID, "sha256").hex()[:SALT_ID_CHARS]


def matches(key: str, stored: bytes, salts: Sequence[str]) -> int | None:
    """Return the index in `salts` of the salt under which `key` has the digest `stored`; None if there is none.

    Tries every salt in constant time: its duration reveals nothing about the digest or the matching salt.
    """
    found = None
    for index, salt in enumerate(salts):
        if hmac.compare_digest(digest(key, salt), stored):
            found = index
    return found


def _random_base62(length: int) -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def _checksum(body: str) -> str:
    number = crc32(body.encode())
    chars = []
    for _ in range(CHECKSUM_CHARS):
        number, digit = divmod(number, len(_BASE62))
        chars.append(_BASE62[digit])
    return "".join(reversed(chars))
