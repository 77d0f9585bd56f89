"""State of a caller's limits at an admission, its rate limit headers, and the errors of refusals. Pure."""

from msgspec import Struct

from billing.errors import (
    ConcurrencyExceeded,
    DailyQuotaExceeded,
    InsufficientQuota,
    RateLimitExceeded,
    TokenRateExceeded,
)
from billing.plans import Limits
from codexflow.lib.asgi import Header

SECONDS_PER_DAY = 86_400
SECONDS_PER_MINUTE = 60
SCOPES = ("organization", "key")
DEGRADED = (b"x-cfx-degraded", b"limiter")


def duration(seconds: int) -> str:
    """Format seconds as in OpenAI's reset headers: 12s, 1m0s."""
    minutes, rest = divmod(seconds, SECONDS_PER_MINUTE)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


# Reset headers of every second of a minute, built once.
_RESETS = tuple(
    (
        (b"x-ratelimit-reset-requests", duration(left_s).encode()),
        (b"x-ratelimit-reset-tokens", duration(left_s).encode()),
    )
    for left_s in range(SECONDS_PER_MINUTE + 1)
)


class Admission(Struct, frozen=True, kw_only=True, gc=False):
    """Counts after a call was admitted, or when it was refused. Pairs are organization and key."""

    day: int  # days since 1970, by Redis's clock
    minute: int  # minutes since 1970
    now_ms: int
    limits: tuple[Limits, Limits]
    requests_today: tuple[int, int]
    minute_requests: tuple[int, int] = (0, 0)
    minute_tokens: tuple[int, int] = (0, 0)
    # Redis was away: daily counts are the last that this process knew, and those of the minute are unknown.
    is_degraded: bool = False

    @property
    def limit(self) -> int:
        """Daily requests of the scope with the least left; -1 = none."""
        return self._daily()[0]

    @property
    def remaining(self) -> int:
        return self._daily()[1]

    @property
    def reset_s(self) -> int:
        """Next midnight (UTC), in Unix seconds."""
        return (self.day + 1) * SECONDS_PER_DAY

    @property
    def minute_ends_in_s(self) -> int:
        return SECONDS_PER_MINUTE - self.now_ms // 1000 % SECONDS_PER_MINUTE

    def _daily(self) -> tuple[int, int]:
        organization, key = self.limits
        return least_left(organization.daily_requests, key.daily_requests, self.requests_today)

    def headers(self) -> list[Header]:
        """Rate limit headers: X-RateLimit-* of the day, and OpenAI's of the minute, of the limits that are set."""
        organization, key = self.limits
        headers: list[Header] = []
        limit, left = least_left(organization.daily_requests, key.daily_requests, self.requests_today)
        if limit >= 0:
            headers += (
                (b"x-ratelimit-limit", b"%d" % limit),
                (b"x-ratelimit-remaining", b"%d" % left),
                (b"x-ratelimit-reset", b"%d" % self.reset_s),
            )
        if self.is_degraded:
            headers.append(DEGRADED)
            return headers
        resets = _RESETS[self.minute_ends_in_s]
        limit, left = least_left(organization.rpm, key.rpm, self.minute_requests)
        if limit >= 0:
            headers += (
                (b"x-ratelimit-limit-requests", b"%d" % limit),
                (b"x-ratelimit-remaining-requests", b"%d" % left),
                resets[0],
            )
        limit, left = least_left(organization.tpm, key.tpm, self.minute_tokens)
        if limit >= 0:
            headers += (
                (b"x-ratelimit-limit-tokens", b"%d" % limit),
                (b"x-ratelimit-remaining-tokens", b"%d" % left),
                resets[1],
            )
        return headers


def least_left(organization: int, key: int, used: tuple[int, int]) -> tuple[int, int]:
    """The limit with less left, and how much; (-1, 0) when neither is set."""
    if key < 0:
        return (organization, max(0, organization - used[0])) if organization >= 0 else (-1, 0)
    key_left = max(0, key - used[1])
    if organization < 0:
        return key, key_left
    organization_left = max(0, organization - used[0])
    if (organization_left, organization) < (key_left, key):
        return organization, organization_left
    return key, key_left


# Verdict of admit.lua -> the error, and the limit's name in its message.
_REFUSALS: dict[str, tuple[type[RateLimitExceeded | InsufficientQuota], str]] = {
    "day": (DailyQuotaExceeded, "requests a day"),
    "rpm": (RateLimitExceeded, "requests a minute"),
    "tpm": (TokenRateExceeded, "tokens a minute"),
    "streams": (ConcurrencyExceeded, "concurrent streams"),
    "budget": (InsufficientQuota, "budget"),
}


def refusal(
    verdict: str, scope: int, admission: Admission, *, slot_free_in_ms: int = 0
) -> RateLimitExceeded | InsufficientQuota:
    """Error of a verdict about one of SCOPES, with the whole seconds after which the same call may pass.

    A stream's slot is free at the latest when its lease expires. No client can wait for the next day or for money.
    """
    error, limit = _REFUSALS[verdict]
    name = SCOPES[scope]
    return error(
        f"{error.default_message} (limit of the {name}: {limit})",
        retry_after_s=_retry_after_s(verdict, admission, slot_free_in_ms),
        scope=name,
        admission=admission,
    )


def _retry_after_s(verdict: str, admission: Admission, slot_free_in_ms: int) -> int | None:
    if verdict == "streams":
        return max(1, -(-slot_free_in_ms // 1000))
    return admission.minute_ends_in_s if verdict in ("rpm", "tpm") else None
