"""POST /v1/messages/count_tokens: size of a message in tokens, by the upstream or else estimated here.

It costs nothing and takes nothing from the limits of calls: editors ask in bursts. Requests a minute limit it apart.
"""

import logging

import msgspec
from msgspec import Struct

from billing.limiter.measure import count_measured
from codexflow.lib.errors import AppError
from codexflow.lib.ids import text_of
from routing.accept import accept
from routing.context import GatewayContext
from routing.errors import ClientDisconnected, ShuttingDown
from routing.headers import routing_headers
from routing.incoming import Incoming
from routing.surfaces import body
from routing.surfaces.table import COUNT_TOKENS

logger = logging.getLogger(__name__)

# A count is only worth a short wait: our own estimate is as good as LiteLLM's for most models.
TIMEOUT_S = 3.0
RESPONSE_LIMIT_BYTES = 64 * 1024


class _Count(Struct):
    input_tokens: int


_decoder = msgspec.json.Decoder(_Count)


async def serve(context: GatewayContext, incoming: Incoming) -> None:
    """Respond `{"input_tokens": n}`. Raises what a message would before it is sent upstream."""
    accepted = await accept(context, incoming, COUNT_TOKENS)
    request, model = accepted.request, accepted.first_model
    message = body.upstream_body(model, body.upstream_tail(request, max_tokens=0, temperature=None))
    await count_measured(context.redis, accepted.principal.payer, accepted.principal.limits)
    counted = await _count_upstream(context, incoming, message)
    tokens = counted if counted is not None else request.size(0).expected_prompt_tokens
    headers = [
        (b"content-type", b"application/json"),
        *routing_headers(accepted.route.stage, accepted.route.reason, model),
    ]
    await incoming.respond(200, headers, msgspec.json.encode({"input_tokens": tokens}))


async def _count_upstream(context: GatewayContext, incoming: Incoming, message: bytes) -> int | None:
    """Return the upstream's count; None when it has none: some versions of LiteLLM lack the endpoint."""
    try:
        call_id = (b"x-litellm-call-id", f"{text_of(incoming.request_id)}.1".encode())
        headers = [call_id, *COUNT_TOKENS.headers(incoming.headers)]
        connection = await context.pool.post(COUNT_TOKENS.path, message, headers=headers)
        status = await connection.head(TIMEOUT_S)
        response = await connection.body(TIMEOUT_S, limit_bytes=RESPONSE_LIMIT_BYTES)
        return _decoder.decode(response).input_tokens if status == 200 else None
    except (ClientDisconnected, ShuttingDown):
        raise
    except (AppError, msgspec.MsgspecError, UnicodeError) as exc:
        logger.info("count_tokens.estimated", extra={"request_id": str(incoming.request_id), "reason": repr(exc)})
        return None
