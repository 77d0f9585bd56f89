"""The order in which models are tried."""

from functools import lru_cache

from msgspec import Struct


class Attempt(Struct, frozen=True):
    """One try at one model. `n` counts from 1 over the plan."""

    n: int
    model: str
    is_retry: bool


@lru_cache(maxsize=1024)  # few chains of models, and nearly always all of them are well
def plan_attempts(models: tuple[str, ...], open_models: frozenset[str]) -> tuple[Attempt, ...]:
    """The tries for one call: the first model, once more the same, then every other model once.

    Models whose circuit is open are left out; when the first is, its successor takes its place and gets the retry.
    Empty when all are open. The caller walks the plan until one try yields a first byte: it takes a retry only after
    502, 503, 504 or a connection error, and after 429 skips it and goes on to the next model.
    """
    awake = [model for model in dict.fromkeys(models) if model not in open_models]
    tries = [(model, False) for model in awake]
    tries[1:1] = [(model, True) for model in awake[:1]]
    return tuple(Attempt(n, model, is_retry) for n, (model, is_retry) in enumerate(tries, start=1))


class RetryBudget:
    """Retries as a share of calls: when everything fails, trying everything twice only makes it worse.

    Every call earns a tenth of a retry and every second a whole one, up to a few in store, so that a process with
    little to do may always retry.
    """

    PER_CALL = 0.1
    PER_SECOND = 1.0
    MOST_IN_STORE = 20.0

    __slots__ = ("_at_s", "_store")

    def __init__(self) -> None:
        self._store = self.MOST_IN_STORE
        self._at_s = 0.0

    def earn(self) -> None:
        """A call begins."""
        self._store = min(self._store + self.PER_CALL, self.MOST_IN_STORE)

    def spend(self, now_s: float) -> bool:
        """Whether a retry may be made; if so, it is paid for. `now_s` never goes back."""
        self._store = min(self._store + (now_s - self._at_s) * self.PER_SECOND, self.MOST_IN_STORE)
        self._at_s = now_s
        if self._store < 1:
            return False
        self._store -= 1
        return True
