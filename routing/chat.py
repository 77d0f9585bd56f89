"""One call on any metered surface, start to end. Read this first."""

from billing.errors import InsufficientQuota
from codexflow.lib.asgi import Header
from codexflow.lib.errors import AppError
from routing import prompt_count, relay
from routing.accept import accept
from routing.content_capture import CapturingResponse, Response
from routing.context import GatewayContext
from routing.headers import response_headers
from routing.incoming import Incoming
from routing.planner import serve as planner
from routing.planner.engage import Mode
from routing.surfaces.served import other_model
from routing.surfaces.table import Surface
from routing.upstream.attempts import plan_attempts
from routing.upstream.open import Upstream


async def serve(context: GatewayContext, incoming: Incoming, surface: Surface) -> None:
    """Serve one call on any metered surface.

    Up to the first content the next attempt may run, and a failure is an ordinary HTTP error; after it, and once a
    silent stream has been pinged, the failure travels inside the stream. Every admitted call ends in exactly one usage
    event.
    """
    accepted = await accept(context, incoming, surface)  # 400, 401, 403, 408, 413
    planned = ""  # why the planner left it, for the headers
    if (planning := accepted.planning) is not None:
        if planning.decision.is_planned:
            if await planner.serve(context, incoming, accepted, planning):
                return
        elif planning.mode is Mode.DRY_RUN:
            await planner.quote_one_pass(incoming, planning)
            return
        else:
            planned = planning.decision.header
    if accepted.is_above_cap is not None:
        accepted = await prompt_count.fit_cap(context, incoming, accepted, accepted.is_above_cap)  # 402
    principal, rates, response_format = accepted.principal, accepted.rates, accepted.surface.response_format
    # Before admission: what is wrong with the body must not be found once the call is counted.
    request = accepted.upstream_request(context.env)  # 400
    context.breakers.raise_if_all_open(rates, principal.payer)  # 503
    try:
        call = await prompt_count.admitted(context, accepted)  # 429, 503
    except InsufficientQuota as refusal:
        call = await prompt_count.admit_by_count(context, incoming, accepted, refusal)  # 402
    if (least := call.intent.least_units) is not None:
        call.meter.record_least(least)
    upstream = Upstream(context.pool, context.breakers, context.retries, call, request)
    incoming.admission = call.admission
    incoming.watch(upstream.abort)
    call.shutdown.on_set(upstream.abort)
    capture = CapturingResponse(incoming, accepted.raw) if principal.keeps_content else None
    response: Response = capture or incoming
    stream: relay.StreamRelay | None = None

    def headers_of(model: str) -> list[Header]:
        return response_headers(accepted.route, model, call.admission, planned, incoming.counted_tokens)

    try:
        async with call:  # settled and recorded once, whatever happens
            models = tuple(call.rates)  # those that the hold covers
            attempts = plan_attempts(models, context.breakers.open_for(models, principal.payer))
            if accepted.request.is_stream:
                stream = relay.StreamRelay(
                    response,
                    call,
                    upstream,
                    response_format=response_format,
                    wants_usage=accepted.request.schema.wants_usage,
                    ping_s=context.env.stream_ping_s,
                    headers=headers_of,
                )
            try:
                opened = await upstream.open_first(attempts)  # 4xx of the upstream, 429, 503, 504
            except AppError as error:
                if stream is None or not stream.is_started:
                    raise
                await stream.break_off(error)
                return
            model = opened.attempt.model
            if (other := other_model(opened.identity.model, model)) is not None:
                rates_of_other = accepted.rates_of(other)
                context.substitutes.note(model, other, is_priced=rates_of_other is not None)
                if rates_of_other is not None:
                    call.record_served(*rates_of_other)
            incoming.dropped += accepted.left_out(model)
            if stream is not None:
                await stream.send(opened, idle_s=request.silence_s(model, request.idle_s))
            else:
                await relay.send_body(response, call, opened, headers_of(model))
    finally:
        if stream is not None:
            stream.close()
        if capture is not None:
            context.content.publish(call.request_id, principal.organization_id, capture.content)
