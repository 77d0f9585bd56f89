"""What each role may do in its organization. Pure."""

from enum import StrEnum


class Action(StrEnum):
    """Something that not every member may do. Looking at usage is every member's right."""

    MANAGE_KEYS = "manage_keys"
    MANAGE_MEMBERS = "manage_members"
    MANAGE_BILLING = "manage_billing"
    SEE_BILLING = "see_billing"
    SEE_AUDIT = "see_audit"
    MANAGE_ORGANIZATION = "manage_organization"


_ALL = frozenset(Action)
_ALLOWED: dict[str, frozenset[Action]] = {
    "owner": _ALL,
    "admin": _ALL - {Action.MANAGE_ORGANIZATION},
    "developer": frozenset({Action.MANAGE_KEYS, Action.SEE_BILLING}),
    "billing": frozenset({Action.MANAGE_BILLING, Action.SEE_BILLING}),
    "viewer": frozenset(),
}


def may(role: str, action: Action) -> bool:
    """Whether a member with this role may do this. An unknown role may do nothing."""
    return action in _ALLOWED.get(role, frozenset())
