"""Principal: the authenticated caller of the gateway."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from billing.limiter.limits import Payer, TagScope
from billing.plans import Limits, tighter
from keys.policy import KeyPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Facts about a caller that a request needs, in one value that may be cached.

    `limits` are those of the organization and of the key, in this order; `policy` is the intersection of plan and key.
    """

    key_id: UUID
    organization_id: UUID
    user_id: int
    digest: bytes
    payer: Payer
    limits: tuple[Limits, Limits]
    # First key of the lineage, if the key succeeded another one.
    first_key_id: UUID | None = None
    margin_bp: int = 0
    # The plan refuses calls while limits cannot be checked, even without a hard budget.
    fails_closed: bool = False
    policy: KeyPolicy = field(default_factory=KeyPolicy)
    # Unix time at which it changes by itself: a raise of a budget ends, or another model serves one of its list.
    limits_until_s: float | None = None
    # Unix time from which the key is invalid: expiry or end of a rotation's overlap.
    valid_until_s: float | None = None
    is_revoked: bool = False
    # It is known under which salt the key was stored.
    has_salt_id: bool = True
    is_suspended: bool = False
    # The organization retains prompts and responses.
    keeps_content: bool = False
    # Tags with a hard budget.
    tags: Mapping[str, TagScope] = field(default_factory=dict)
    # Of the limits: whether money may refuse a call, and tokens a minute, -1 for none. Computed once.
    has_budget: bool = field(init=False, repr=False, compare=False)
    tokens_per_minute: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        organization, key = self.limits
        object.__setattr__(self, "has_budget", organization.has_budget or key.has_budget)
        object.__setattr__(self, "tokens_per_minute", tighter(organization.tpm, key.tpm))
