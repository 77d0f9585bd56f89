"""What each role may do in an organization. Pure: role in, answer out."""

from enum import StrEnum


class Action(StrEnum):
    """Things that pages and the management API ask leave for."""

    VIEW_USAGE = "view_usage"
    VIEW_KEYS = "view_keys"
    MANAGE_KEYS = "manage_keys"
    VIEW_BILLING = "view_billing"
    MANAGE_BILLING = "manage_billing"
    MANAGE_MEMBERS = "manage_members"
    MANAGE_ORGANIZATION = "manage_organization"
    DELETE_ORGANIZATION = "delete_organization"


_LOOK = frozenset({Action.VIEW_USAGE, Action.VIEW_KEYS})
_ALLOWED: dict[str, frozenset[Action]] = {
    "owner": frozenset(Action),
    "admin": frozenset(Action) - {Action.DELETE_ORGANIZATION},
    "developer": _LOOK | {Action.MANAGE_KEYS, Action.VIEW_BILLING},
    "billing": _LOOK | {Action.VIEW_BILLING, Action.MANAGE_BILLING},
    "viewer": _LOOK,
}
ROLES = frozenset(_ALLOWED)


def allows(role: str, action: Action) -> bool:
    """Whether a member with `role` may do `action`. An unknown role may do nothing."""
    return action in _ALLOWED.get(role, frozenset())
