"""State of a caller's limits at an admission, its rate limit headers, and the errors of refusals. Pure."""

from dataclasses import dataclass
from uuid import UUID

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
from codexflow.lib.errors import bounded_wait_s
from codexflow.lib.money import format_usd, parse_usd

SECONDS_PER_DAY = 86_400
SECONDS_PER_MINUTE = 60
SCOPES = ("organization", "key")
# The third scope, of calls whose tag has a hard budget.
TAG = len(SCOPES)
DEGRADED = (b"x-cfx-degraded", b"limiter")


@dataclass(frozen=True, slots=True)
class TagScope:
    """A tag with a hard budget: the budget's id, which names the scope, and what it allows."""

    tag: str
    budget_id: UUID
    key: bytes  # of the scope in Redis
    limits: Limits


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
        # Nearly always the organization's alone: then no function is called for each.
        has_own = bool(key.packed)
        headers: list[Header] = []
        limit = organization.daily_requests
        left = limit - self.requests_today[0]
        if has_own:
            limit, left = least_left(limit, key.daily_requests, self.requests_today)
        if limit >= 0:
            headers += (
                (b"x-ratelimit-limit", b"%d" % limit),
                (b"x-ratelimit-remaining", b"%d" % (left if left > 0 else 0)),
                (b"x-ratelimit-reset", b"%d" % ((self.day + 1) * SECONDS_PER_DAY)),
            )
        if self.is_degraded:
            headers.append(DEGRADED)
            return headers
        resets = _RESETS[SECONDS_PER_MINUTE - self.now_ms // 1000 % SECONDS_PER_MINUTE]
        limit = organization.rpm
        left = limit - self.minute_requests[0]
        if has_own:
            limit, left = least_left(limit, key.rpm, self.minute_requests)
        if limit >= 0:
            headers += (
                (b"x-ratelimit-limit-requests", b"%d" % limit),
                (b"x-ratelimit-remaining-requests", b"%d" % (left if left > 0 else 0)),
                resets[0],
            )
        limit = organization.tpm
        left = limit - self.minute_tokens[0]
        if has_own:
            limit, left = least_left(limit, key.tpm, self.minute_tokens)
        if limit >= 0:
            headers += (
                (b"x-ratelimit-limit-tokens", b"%d" % limit),
                (b"x-ratelimit-remaining-tokens", b"%d" % (left if left > 0 else 0)),
                resets[1],
            )
        return headers


_NO_LIMIT = (-1, 0)


def least_left(organization: int, key: int, used: tuple[int, int]) -> tuple[int, int]:
    """The limit with less left, and how much; (-1, 0) when neither is set."""
    if key < 0:  # nearly always
        if organization < 0:
            return _NO_LIMIT
        left = organization - used[0]
        return organization, left if left > 0 else 0
    key_left = max(0, key - used[1])
    if organization < 0:
        return key, key_left
    organization_left = max(0, organization - used[0])
    if (organization_left, organization) < (key_left, key):
        return organization, organization_left
    return key, key_left


# Verdict of admit.lua -> the error.
_REFUSALS: dict[str, type[RateLimitExceeded | InsufficientQuota]] = {
    "day": DailyQuotaExceeded,
    "rpm": RateLimitExceeded,
    "tpm": TokenRateExceeded,
    "streams": ConcurrencyExceeded,
    "budget": InsufficientQuota,
}
# As admit.lua numbers them. The total is the organization's credit.
BUDGETS = ("credit", "day", "month")


class Shortage(Struct, frozen=True, kw_only=True):
    """Money that is missing: what is left of a budget, running calls taken off, and what the call may cost."""

    budget: str = BUDGETS[0]
    left_nanos: int = 0  # negative: overdrawn
    hold_nanos: int = 0


def refusal(
    verdict: str,
    scope: int,
    admission: Admission,
    *,
    slot_free_in_ms: int = 0,
    tokens: int = 0,
    money: Shortage | None = None,
    plan: str = "",
    pages_url: str = "",
    tag: TagScope | None = None,
) -> RateLimitExceeded | InsufficientQuota:
    """Error of a verdict about one of SCOPES, or TAG, with the whole seconds after which the same call may pass.

    `tag` is the call's, if it has a budget. A stream's slot is free at the latest when its lease expires. No client can
    wait for the next day, for money, or for a limit of 0.
    """
    if scope == TAG and tag is not None:
        name, limits = "tag", tag.limits
    else:
        name, limits = SCOPES[scope], admission.limits[scope]
    wait_s = _retry_after_s(verdict, admission, slot_free_in_ms)
    if verdict == "budget":
        limit, message = None, _about_money(money or Shortage(), limits, name, pages_url, tag)
    else:
        limit = _limit_of(verdict, limits)
        of_plan = f" on plan {plan}" if plan and name == SCOPES[0] else ""
        message = _about_limit(verdict, limit, admission.minute_tokens[scope], tokens, of_plan)
        message += _way_out(verdict, limit, wait_s, pages_url)
    left_nanos = money.left_nanos if money is not None else 0
    error = _REFUSALS[verdict](
        f"{message} (limit of the {name})",
        retry_after_s=wait_s,
        scope=name,
        admission=admission,
        left_nanos=left_nanos,
    )
    if limit == 0:
        error.outlasts_retries = True  # type: ignore[misc] # of this one
    return error


def _retry_after_s(verdict: str, admission: Admission, slot_free_in_ms: int) -> int | None:
    if verdict == "streams":
        return bounded_wait_s(max(1, -(-slot_free_in_ms // 1000)))
    return admission.minute_ends_in_s if verdict in ("rpm", "tpm") else None


def _limit_of(verdict: str, limits: Limits) -> int:
    return {
        "day": limits.daily_requests,
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "streams": limits.concurrent_streams,
    }[verdict]


def _about_limit(verdict: str, limit: int, used: int, tokens: int, of_plan: str) -> str:
    """Name the limit with its number."""
    if verdict == "streams":
        return f"{limit:,} open stream{'' if limit == 1 else 's'} at once{of_plan}"
    if verdict == "tpm":
        taken = f" ({used:,} used or reserved, this request may use {tokens:,})" if tokens and limit else ""
        return f"{limit:,} tokens a minute{of_plan}{taken}"
    return f"{limit:,} request{'' if limit == 1 else 's'} a {'day' if verdict == 'day' else 'minute'}{of_plan}"


def _way_out(verdict: str, limit: int, wait_s: int | None, pages_url: str) -> str:
    if limit == 0:
        return ": nothing is allowed"
    if verdict == "day":
        return f", all used; the next begin at midnight UTC{_at('; larger plans', pages_url, 'billing')}"
    if verdict == "streams":
        return f"; retry when one has ended, at the latest in {wait_s} s"
    return f"; retry in {wait_s} s"


def _about_money(money: Shortage, limits: Limits, scope: str, pages_url: str, tag: TagScope | None) -> str:
    """Say how much is left, how much is needed, and where it can be had."""
    left, needed = _usd(max(0, money.left_nanos), money.hold_nanos)
    amounts = f"left {left}, this request may cost {needed}"
    if money.budget == "credit":
        return f"Credit {amounts}; add credit{_at('', pages_url, 'billing')}, or request fewer tokens"
    limit_nanos = limits.day_budget_nanos if money.budget == "day" else limits.month_budget_nanos
    resets = "at midnight UTC" if money.budget == "day" else "on the first of the month (UTC)"
    page = {"organization": "billing", "key": "keys", "tag": "billing/tags"}[scope]
    budget = f"Budget of the {money.budget} ({_usd(limit_nanos)[0]})"
    if scope == "tag" and tag is not None:
        spent = _usd(limit_nanos - money.left_nanos)[0]
        budget = f"Budget of the {money.budget} of the tag {tag.tag} ({_usd(limit_nanos)[0]}), spent or held {spent},"
    return f"{budget} {amounts}; it resets {resets}{_at('; change it', pages_url, page)}"


def _at(words: str, pages_url: str, page: str) -> str:
    return f"{words} at {pages_url}/{page}/" if pages_url else ""


# Decimals that show an amount, and two different ones as different.
_DECIMALS = (2, 4, 6, 9)


def _usd(*amounts: int) -> list[str]:
    """Format amounts in USD, alike, with as few decimals as tell them apart and from nothing."""
    for decimals in _DECIMALS:
        shown = [format_usd(nanos, decimals=decimals) for nanos in amounts]
        is_exact = all(parse_usd(text) == nanos for text, nanos in zip(shown, amounts, strict=True))
        if is_exact or (decimals > _DECIMALS[0] and _tells_apart(shown, amounts)):
            break
    return [f"${text}" for text in shown]


def _tells_apart(shown: list[str], amounts: tuple[int, ...]) -> bool:
    is_something = all(float(text) > 0 or not nanos for text, nanos in zip(shown, amounts, strict=True))
    return is_something and len(set(shown)) == len(set(amounts))
