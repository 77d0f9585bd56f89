"""System checks of accounts."""

from dataclasses import replace
from typing import Any

import pytest
from django.core.checks import run_checks

from accounts.checks import check_seat_limit


def test_production_without_mail_is_a_warning(settings: Any) -> None:
    settings.ENV = replace(settings.ENV, mode="production", mail=None)
    assert "accounts.W001" in [message.id for message in run_checks()]
    settings.ENV = replace(settings.ENV, mode="development")
    assert "accounts.W001" not in [message.id for message in run_checks()]


@pytest.mark.parametrize(("path", "ids"), [("billing.selectors.seats_of", []), ("billing.nowhere", ["accounts.E001"])])
def test_a_seat_limit_that_cannot_be_imported_is_an_error(settings: Any, path: str, ids: list[str]) -> None:
    settings.SEAT_LIMIT = path
    assert [message.id for message in check_seat_limit(None)] == ids
