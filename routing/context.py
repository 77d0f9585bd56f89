"""What every call of a process shares."""

from dataclasses import dataclass

from codexflow.env import Env
from keys.lookup import PrincipalCache
from routing.call import FrontDesk
from routing.upstream.attempts import RetryBudget
from routing.upstream.breaker_store import Breakers
from routing.upstream.pool import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """One a process, from startup to shutdown."""

    env: Env
    keys: PrincipalCache
    desk: FrontDesk
    breakers: Breakers
    retries: RetryBudget
    pool: Pool
