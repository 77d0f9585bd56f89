"""Principal: a caller once its key is known."""

from dataclasses import dataclass, field
from uuid import UUID

from billing.limiter.limits import Payer
from billing.plans import Limits
from keys.policy import KeyPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Everything about a caller that a request needs, in one value that may be cached.

    `limits` are those of the organization and of the key; `policy` is what plan and key allow together.
    """

    key_id: UUID
    organization_id: UUID
    user_id: int
    digest: bytes
    payer: Payer
    limits: tuple[Limits, Limits]
    margin_bp: int = 0
    # The plan refuses while limits cannot be checked, hard budget or not.
    fails_closed: bool = False
    policy: KeyPolicy = field(default_factory=KeyPolicy)
    # Unix seconds after which the key does not work: expiry or end of a rotation's grace.
    works_until_s: float | None = None
    is_revoked: bool = False
    is_suspended: bool = False
    # The organization wants prompts and answers kept.
    keeps_content: bool = False
