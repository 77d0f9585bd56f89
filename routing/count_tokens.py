"""POST /v1/messages/count_tokens: how large a message would be. Asked of the upstream, answered here when it cannot.

It counts as a request and costs nothing.
"""

import logging

import msgspec
from msgspec import Struct

from codexflow.lib.errors import AppError
from routing import chat
from routing.call import LiveCall
from routing.context import House
from routing.errors import ClientDisconnected, ShuttingDown
from routing.incoming import Incoming
from routing.surfaces import body
from routing.surfaces.table import COUNT_TOKENS
from routing.upstream.open import ERROR_BODY_LIMIT_BYTES

logger = logging.getLogger(__name__)

# A count is only worth a short wait: our own estimate is as good as LiteLLM's for most models.
TIMEOUT_S = 3.0


class _Count(Struct):
    input_tokens: int


_decoder = msgspec.json.Decoder(_Count)


async def serve(house: House, incoming: Incoming) -> None:
    """Answer `{"input_tokens": n}`. Raises what a message would before it is sent upstream."""
    accepted = await chat.accept(house, incoming, COUNT_TOKENS)
    call, model = accepted.call, accepted.intent.model
    message = body.upstream_body(model, body.upstream_tail(call, max_tokens=0, temperature=None))
    free = msgspec.structs.replace(accepted.intent, hold_nanos=0, tokens_reserved=0, is_stream=False)
    live = await house.desk.admit(accepted.principal, free, accepted.rates)
    incoming.admission = live.admission
    async with live:
        counted = await _asked(house, live, message)
        tokens = counted if counted is not None else call.size(0).expected_prompt_tokens
        await live.finish(status=200)
        headers = [(b"content-type", b"application/json"), *chat.answer_headers(accepted.route, model, live.admission)]
        await incoming.respond(200, headers, msgspec.json.encode({"input_tokens": tokens}))


async def _asked(house: House, live: LiveCall, message: bytes) -> int | None:
    """The upstream's count; None when it has none: some versions of LiteLLM lack the endpoint."""
    try:
        call_id = (b"x-litellm-call-id", f"{live.request_id}.1".encode())
        connection = await house.pool.post(COUNT_TOKENS.path, message, headers=[call_id])
        status = await connection.head(TIMEOUT_S)
        answer = await connection.body(TIMEOUT_S, limit_bytes=ERROR_BODY_LIMIT_BYTES)
        return _decoder.decode(answer).input_tokens if status == 200 else None
    except (ClientDisconnected, ShuttingDown):
        raise
    except (AppError, msgspec.MsgspecError, UnicodeError) as exc:
        logger.info("count_tokens.estimated", extra={"request_id": str(live.request_id), "reason": repr(exc)})
        return None
