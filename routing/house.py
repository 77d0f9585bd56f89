"""What every call of a process shares."""

from dataclasses import dataclass

from codexflow.env import Env
from keys.lookup import PrincipalCache
from routing.attempts import RetryBudget
from routing.breaker_store import Breakers
from routing.live import FrontDesk
from routing.pool import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """One a process, from startup to shutdown."""

    env: Env
    keys: PrincipalCache
    desk: FrontDesk
    breakers: Breakers
    retries: RetryBudget
    pool: Pool
