"""Dependencies shared by all requests of a gateway process."""

from dataclasses import dataclass

from codexflow.env import Env
from codexflow.lib.reception import Reception
from codexflow.lib.redis import GatewayRedis
from keys.lookup import PrincipalCache
from routing.content_capture import ContentPublisher
from routing.listing import ModelListing
from routing.refusal_counter import RefusalCounter
from routing.substitutes import Substitutes
from routing.tracker import CallTracker
from routing.upstream.attempts import RetryBudget
from routing.upstream.breaker_store import Breakers
from routing.upstream.pool import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayContext:
    """One instance per process, from startup to shutdown."""

    env: Env
    redis: GatewayRedis
    keys: PrincipalCache
    listing: ModelListing
    tracker: CallTracker
    breakers: Breakers
    retries: RetryBudget
    pool: Pool
    reception: Reception
    content: ContentPublisher
    refusals: RefusalCounter
    substitutes: Substitutes
