"""Money of one planned request: what is spent, what running calls may cost, and the cap. Pure."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(slots=True)
class Purse:
    """No call begins that could lift the sum above `limit_nanos`. Nano-USD."""

    limit_nanos: int
    paid_nanos: int = 0
    reserved_nanos: int = 0

    def reserve(self, most_nanos: int) -> bool:
        """Set money aside for a call that costs at most so much. Returns False when it does not fit."""
        if self.paid_nanos + self.reserved_nanos + most_nanos > self.limit_nanos:
            return False
        self.reserved_nanos += most_nanos
        return True

    def pay(self, most_nanos: int, cost_nanos: int) -> None:
        """End a call for which `most_nanos` were set aside."""
        self.reserved_nanos -= most_nanos
        self.paid_nanos += cost_nanos


def limit_of(*, max_cost_nanos: int, cap_nanos: int | None, margin: Decimal) -> int:
    """Most that a planned request may cost: the smaller cap, less the margin of safety."""
    cap = max_cost_nanos if cap_nanos is None else min(max_cost_nanos, cap_nanos)
    return int(cap * (1 - margin))
