"""Permissions of each role in its organization. Pure."""

from enum import StrEnum


class Action(StrEnum):
    """Permission that only some roles have. Every member may view usage."""

    MANAGE_KEYS = "manage_keys"
    MANAGE_MEMBERS = "manage_members"
    MANAGE_BILLING = "manage_billing"
    SEE_BILLING = "see_billing"
    SEE_AUDIT = "see_audit"
    MANAGE_WEBHOOKS = "manage_webhooks"
    MANAGE_ORGANIZATION = "manage_organization"
    EXPORT_USAGE = "export_usage"
    JUDGE_STAGES = "judge_stages"
    USE_PLAYGROUND = "use_playground"
    READ_CONTENT = "read_content"


_ALL = frozenset(Action)
_ALLOWED: dict[str, frozenset[Action]] = {
    "owner": _ALL,
    "admin": _ALL - {Action.MANAGE_ORGANIZATION},
    "developer": frozenset(
        {
            Action.MANAGE_KEYS,
            Action.SEE_BILLING,
            Action.EXPORT_USAGE,
            Action.JUDGE_STAGES,
            Action.USE_PLAYGROUND,
            Action.READ_CONTENT,
        }
    ),
    "billing": frozenset({Action.MANAGE_BILLING, Action.SEE_BILLING}),
    "viewer": frozenset(),
}


def may(role: str, action: Action) -> bool:
    """Return whether a member with this role may do this. An unknown role may do nothing."""
    return action in _ALLOWED.get(role, frozenset())


# From most to least permissions, as pages list them.
ROLES = ("owner", "admin", "developer", "billing", "viewer")


def roles_that_may(action: Action) -> tuple[str, ...]:
    """Return the roles that may do this."""
    return tuple(role for role in ROLES if may(role, action))


def roles_given_by(role: str) -> tuple[str, ...]:
    """Roles that a member with this role may assign. Only owners may assign owner."""
    if not may(role, Action.MANAGE_MEMBERS):
        return ()
    return ROLES if role == "owner" else ROLES[1:]


def may_manage(role: str, other: str) -> bool:
    """Return whether a member with this role may change or remove a member with the role `other`."""
    return other in roles_given_by(role)
