"""Invitation links: signed, so that nobody invents one, and bound to their end, so that a newer one replaces them."""

from datetime import timedelta
from uuid import UUID

from django.core import signing

from accounts.models import Invitation
from codexflow.lib.ids import parse_id

LIVES = timedelta(days=7)
_SALT = "accounts.invitation"


def token_of(invitation: Invitation) -> str:
    """What the link carries."""
    return signing.dumps([str(invitation.pk), int(invitation.expires_at.timestamp())], salt=_SALT)


def parse(token: str) -> tuple[UUID, int] | None:
    """The invitation's id and the end (Unix seconds) that the link was made with; None when it is not one of ours."""
    try:
        text, ends_s = signing.loads(token, salt=_SALT)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    invitation_id = parse_id(text)
    return None if invitation_id is None else (invitation_id, ends_s)
