"""Numbers in what others send."""

import math
from typing import Any


def finite_number(value: Any) -> float | None:
    """Return a JSON value as a finite number: an int, a float, or one of them as text. None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
