"""Organizations with an account."""

from accounts.models import Organization, User
from accounts.services import create_organization
from accounts.tests.factories import a_user
from billing.services import seed_plans
from codexflow.lib.ids import random_id


def an_organization(*, owner: User | None = None, plan: str = "internal") -> Organization:
    """A new organization with its account on a plan."""
    seed_plans()
    return create_organization(name=f"Org {random_id().hex[:8]}", owner=owner or a_user(), plan=plan)
