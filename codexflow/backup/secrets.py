"""Secrets that what is in a backup depends on."""

from django.conf import settings


def secrets_in_force() -> dict[str, str]:
    """Return, by variable, the secrets without which a restored database is of less use."""
    return {"HASH_SALT": settings.ENV.hash_salt, "AUTH_SECRET": settings.ENV.secret_key}
