"""The order in which models are tried."""

from collections.abc import Collection, Sequence

from msgspec import Struct


class Attempt(Struct, frozen=True):
    """One try at one model. `n` counts from 1 over the plan."""

    n: int
    model: str
    is_retry: bool


def plan_attempts(models: Sequence[str], open_models: Collection[str]) -> tuple[Attempt, ...]:
    """The tries for one call: the first model, once more the same, then every other model once.

    Models whose circuit is open are left out; when the first is, its successor takes its place and gets the retry.
    Empty when all are open. The caller walks the plan until one try yields a first byte: it takes a retry only after
    502, 503, 504 or a connection error, and after 429 skips it and goes on to the next model.
    """
    awake = [model for model in dict.fromkeys(models) if model not in open_models]
    tries = [(model, False) for model in awake]
    tries[1:1] = [(model, True) for model in awake[:1]]
    return tuple(Attempt(n, model, is_retry) for n, (model, is_retry) in enumerate(tries, start=1))
