"""Secrets that are none: printed in a guide, made of one letter, or the same as another. Pure.

No message has a part of a secret.
"""

import unicodedata
from collections.abc import Mapping

# Examples of the deployment guides, of LiteLLM's own documents and of ours, in any letters.
PRINTED = frozenset(
    {
        "xk9#mp2$vl5nq8wr",
        "cfx-salt-a7b3c9d2e5f8g1h4j6k0m3n5p8q2r4s6",
        "cfx-auth-b2c4d6e8f0g2h4j6k8l0m2n4p6q8r0s2",
        "sk-litellm-x7y9z2w4v6u8t0s3r5q7p9o1n3m5l7k9",
        "admin123456",
        "sk-litellm-xxx",
        "sk-1234",
        "sk-12345",
        "your_secure_webhook_key_here",
        "sifreniz",
        "hazirladiginiz_db_password",
        "changeme",
        "password",
    }
)
MIN_DIFFERENT = 8  # characters of a secret
REMEDY = "choose random characters: python3 -c 'import secrets; print(secrets.token_urlsafe(36))'"


def folded(text: str) -> str:
    """Return a text without case, accents and brackets, so that İ, I and ı are the same letter."""
    plain = unicodedata.normalize("NFKD", text.strip().strip("[]<>").casefold()).replace("ı", "i")
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


def is_printed(secret: str) -> bool:
    """Return whether a secret or password is an example of a guide, in whatever letters."""
    return folded(secret) in PRINTED


def weak_secrets(secrets: Mapping[str, str], *, needs_variety: frozenset[str]) -> list[str]:
    """Return what is wrong with secrets that are set, by the name of their variable.

    `needs_variety`: those that must not be made of a few characters. Empty ones are somebody else's to report.
    """
    problems, seen = [], dict[str, str]()
    for name, secret in secrets.items():
        if not secret:
            continue
        if is_printed(secret):
            problems.append(f"{name} is an example from the documentation: {REMEDY}")
        elif name in needs_variety and len(set(secret)) < MIN_DIFFERENT:
            problems.append(f"{name} has fewer than {MIN_DIFFERENT} different characters: {REMEDY}")
        elif secret in seen:
            problems.append(f"{name} is the same as {seen[secret]}: each must be its own, so {REMEDY}")
        seen.setdefault(secret, name)
    return problems
