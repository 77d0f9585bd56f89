"""Permissions of roles."""

import pytest

from accounts.models import Membership
from accounts.permissions import Action, may


def test_the_owner_may_do_everything() -> None:
    assert all(may("owner", action) for action in Action)


@pytest.mark.parametrize("action", list(Action))
def test_a_viewer_and_an_unknown_role_may_do_nothing(action: Action) -> None:
    assert not may("viewer", action)
    assert not may("nobody", action)


def test_every_role_has_permissions() -> None:
    from accounts.permissions import _ALLOWED

    assert set(_ALLOWED) == set(Membership.Role.values)
