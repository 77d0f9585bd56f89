"""Exact counts of prompts, for calls that money refuses only because a token a byte is held for them.

The provider's own count, which LiteLLM asks for, takes the place of the bytes, and admission is tried once more. A call
that its money covers never comes here.
"""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from billing.errors import InsufficientQuota
from billing.limiter.holds import worst_nanos
from billing.limiter.measure import may_count
from codexflow.lib.errors import AppError
from codexflow.lib.heavy import beside_the_loop
from codexflow.lib.ids import text_of
from routing.accept import AcceptedCall, within_cap
from routing.call import Call
from routing.context import GatewayContext
from routing.errors import ClientDisconnected, MaxCostExceeded
from routing.incoming import Incoming
from routing.planner.request import cap_of
from routing.surfaces.bounds import counted, is_bound_by_text
from routing.surfaces.counting import MESSAGES_PATH, Countable, countable
from routing.upstream.pool import Connection

logger = logging.getLogger(__name__)

# For the whole exchange: a caller waits for it once, before a response or a refusal.
TIMEOUT_S = 3.0
RESPONSE_LIMIT_BYTES = 64 * 1024


class _ChatCount(Struct):
    total_tokens: int
    count_source: Literal["provider"]  # anything else is an estimate


class _MessagesCount(Struct):
    input_tokens: int
    litellm_count_source: Literal["provider"]


_chat_count = msgspec.json.Decoder(_ChatCount)
_messages_count = msgspec.json.Decoder(_MessagesCount)


def admitted(context: GatewayContext, accepted: AcceptedCall) -> Awaitable[Call]:
    """Admit a call as it was accepted. Raises as `CallTracker.admit`."""
    return context.tracker.admit(
        accepted.principal,
        accepted.intent(),
        accepted.rates,
        size=accepted.size,
        most_tokens=accepted.most_tokens,
    )


async def admit_by_count(
    context: GatewayContext, incoming: Incoming, accepted: AcceptedCall, refusal: InsufficientQuota
) -> Call:
    """Admit a call by the exact count of its prompt. Raises the refusal where no count helps; ClientDisconnected."""
    exact = await _counted(context, incoming, accepted, left_nanos=refusal.facts.get("left_nanos", 0))
    if exact is None:
        raise refusal
    return await admitted(context, exact)


async def fit_cap(
    context: GatewayContext, incoming: Incoming, accepted: AcceptedCall, refusal: MaxCostExceeded
) -> AcceptedCall:
    """Return a call above the caller's cap as it fits by the exact count of its prompt.

    Raises the refusal where it does not fit; ClientDisconnected.
    """
    cap_nanos = cap_of(incoming.headers) or 0
    exact = await _counted(context, incoming, accepted, left_nanos=cap_nanos)
    if exact is None:
        raise refusal
    return replace(exact, rates=within_cap(cap_nanos, exact.size, exact.rates), is_above_cap=None)


async def _counted(
    context: GatewayContext, incoming: Incoming, accepted: AcceptedCall, *, left_nanos: int
) -> AcceptedCall | None:
    """Return the call for its first model alone, held by the count; None where no count can help, or none is to be had.

    Other models may count otherwise. Raises ClientDisconnected.
    """
    principal, model = accepted.principal, accepted.first_model
    if not is_bound_by_text(accepted.size) or context.breakers.open_for((model,), principal.payer):
        return None
    part = await beside_the_loop(countable, accepted.request)
    if part is None or not _may_fit(accepted, part, left_nanos):
        return None
    if not await may_count(context.redis, principal.payer, principal.limits):
        return None
    count = await _ask(context, incoming, accepted, part)
    if count is None:
        return None
    incoming.counted_tokens = count
    size = counted(accepted.size, accepted.request, rest=part.rest, count=count)
    return replace(accepted, size=size, rates={model: accepted.rates[model]})


def _may_fit(accepted: AcceptedCall, part: Countable, left_nanos: int) -> bool:
    """Return whether the smallest count would let the call pass."""
    model = accepted.first_model
    least = counted(accepted.size, accepted.request, rest=part.rest, count=0)
    return worst_nanos(least, {model: accepted.rates[model]}) <= left_nanos


async def _ask(context: GatewayContext, incoming: Incoming, accepted: AcceptedCall, part: Countable) -> int | None:
    """Return the provider's count; None for any other answer, and after TIMEOUT_S. Raises ClientDisconnected."""
    connection: Connection | None = None
    call_id = (b"x-litellm-call-id", f"{text_of(incoming.request_id)}.0".encode())
    headers = [call_id, *accepted.surface.headers(incoming.headers)]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            connection = await context.pool.post(part.path, part.body(accepted.first_model), headers=headers)
            incoming.watch(connection.abort)
            status = await connection.head(TIMEOUT_S)
            response = await connection.body(TIMEOUT_S, limit_bytes=RESPONSE_LIMIT_BYTES)
        count = _count_in(response, part.path) if status == 200 else None
    except (AppError, TimeoutError, msgspec.MsgspecError, UnicodeError) as exc:
        if connection is not None:
            connection.abort()
        if incoming.is_gone:
            raise ClientDisconnected from exc
        logger.info("prompt_count.none", extra={"request_id": str(incoming.request_id), "reason": repr(exc)})
        return None
    finally:
        incoming.unwatch()  # the connection may serve others now
    return count or None


def _count_in(response: bytes, path: str) -> int:
    """Read the count. Raises msgspec.ValidationError for one that is not the provider's."""
    if path == MESSAGES_PATH:
        return _messages_count.decode(response).input_tokens
    return _chat_count.decode(response).total_tokens
