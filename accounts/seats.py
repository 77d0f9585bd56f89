"""How many people an organization may have. Its plan knows, and plans live above this app: it lends us the answer."""

from collections.abc import Callable

from accounts.models import Organization

_ask: list[Callable[[Organization], int]] = []


def told_by(source: Callable[[Organization], int]) -> None:
    """Who is asked from now on."""
    _ask[:] = [source]


def seats_of(organization: Organization) -> int:
    """Members and open invitations together may be no more than this."""
    return _ask[0](organization)
