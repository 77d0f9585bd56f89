"""Invitation tokens: signed, so that they cannot be forged, and bound to an expiry, so that resending replaces them."""

from datetime import timedelta
from uuid import UUID

from django.core import signing

from accounts.models import Invitation
from codexflow.lib.ids import parse_id

LIFETIME = timedelta(days=7)
_SALT = "accounts.invitation"


def token_of(invitation: Invitation) -> str:
    """Token of the invitation's link."""
    return signing.dumps([str(invitation.pk), int(invitation.expires_at.timestamp())], salt=_SALT)


def parse(token: str) -> tuple[UUID, int] | None:
    """Return the invitation's id and the expiry (Unix seconds) inside the token; None if the token is not valid."""
    try:
        text, ends_s = signing.loads(token, salt=_SALT)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    invitation_id = parse_id(text)
    return None if invitation_id is None else (invitation_id, ends_s)
