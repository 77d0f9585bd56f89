"""The seat limit and its setting."""

from typing import Any

from accounts.models import Organization
from accounts.seats import seat_limit
from billing.models import Plan
from tests.support.cast import Cast


def test_the_plan_sets_the_seat_limit(cast: Cast) -> None:
    Plan.objects.filter(slug="free").update(seats=7)
    assert seat_limit(cast.organization) == 7


def two_seats(_organization: Organization) -> int:
    return 2


def test_the_setting_names_the_function_that_returns_the_limit(settings: Any) -> None:
    settings.SEAT_LIMIT = f"{__name__}.two_seats"
    assert seat_limit(Organization()) == 2
