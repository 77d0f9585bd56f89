"""Forecast of a month."""

from datetime import UTC, datetime

import pytest

from billing.forecast import Forecast, forecast

MID_APRIL = datetime(2026, 4, 16, tzinfo=UTC)  # half of thirty days


@pytest.mark.parametrize(
    ("spent", "available", "moment", "expected"),
    [
        (100, 1000, MID_APRIL, Forecast(200, 150)),
        (100, 0, MID_APRIL, Forecast(200, None)),
        (0, 1000, MID_APRIL, Forecast(0, None)),
        (100, 1000, datetime(2026, 4, 1, 5, tzinfo=UTC), Forecast(None, None)),
        (280, 10, datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC), Forecast(280, 0)),
    ],
)
def test_the_forecast_is_the_average_pace(spent: int, available: int, moment: datetime, expected: Forecast) -> None:
    assert forecast(spent_nanos=spent, available_nanos=available, now=moment) == expected
