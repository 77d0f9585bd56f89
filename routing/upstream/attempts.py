"""Order of attempts over the models of a call, and the retry budget. Pure."""

from functools import lru_cache

from msgspec import Struct


class Attempt(Struct, frozen=True):
    """One try at one model. `n` counts from 1 over the plan."""

    n: int
    model: str
    is_retry: bool


@lru_cache(maxsize=1024)  # few chains of models, and their circuits are nearly always closed
def plan_attempts(models: tuple[str, ...], open_models: frozenset[str]) -> tuple[Attempt, ...]:
    """Plan the attempts of one call: the first model, a retry of it, then every other model once.

    Models whose circuit is open are left out; when the first is, its successor takes its place and gets the retry.
    Empty when all are open. The plan is followed until one attempt yields a first byte: a retry is made only after
    502, 503, 504 or a connection error; after 429 it is skipped.
    """
    available = [model for model in dict.fromkeys(models) if model not in open_models]
    planned = [(model, False) for model in available]
    planned[1:1] = [(model, True) for model in available[:1]]
    return tuple(Attempt(n, model, is_retry) for n, (model, is_retry) in enumerate(planned, start=1))


class RetryBudget:
    """Budget of retries as a share of calls: when everything fails, trying everything twice only makes it worse.

    Every call earns a tenth of a retry and every second a whole one, up to a maximum, so that a process with little
    traffic may always retry.
    """

    PER_CALL = 0.1
    PER_SECOND = 1.0
    MAX_RETRIES = 20.0

    __slots__ = ("_at_s", "_balance")

    def __init__(self) -> None:
        self._balance = self.MAX_RETRIES
        self._at_s = 0.0

    def earn(self) -> None:
        """Add the share of one call."""
        self._balance = min(self._balance + self.PER_CALL, self.MAX_RETRIES)

    def spend(self, now_s: float) -> bool:
        """Pay for one retry. Returns whether the budget allows it. `now_s` never goes back."""
        self._balance = min(self._balance + (now_s - self._at_s) * self.PER_SECOND, self.MAX_RETRIES)
        self._at_s = now_s
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
