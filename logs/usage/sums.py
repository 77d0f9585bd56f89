"""Sums of usage. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class Sums:
    """Sums of usage."""

    cost_nanos: int = 0
    requests: int = 0
    tokens: int = 0
    errors: int = 0

    def of(self, metric: str) -> int:
        return int(getattr(self, "cost_nanos" if metric == "cost" else metric))

    def add(self, other: "Sums") -> None:
        self.cost_nanos += other.cost_nanos
        self.requests += other.requests
        self.tokens += other.tokens
        self.errors += other.errors
