"""One call on any metered surface, start to end. Read this first."""

from billing.limiter.limits import Admission
from codexflow.lib.asgi import Header
from codexflow.lib.errors import AppError
from routing import relay
from routing.accept import accept
from routing.content_capture import CapturingResponse, Response
from routing.context import GatewayContext
from routing.incoming import Incoming
from routing.stages import Route
from routing.surfaces.served import other_model_in
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
    principal, rates, response_format = accepted.principal, accepted.rates, accepted.surface.response_format
    # Before admission: what is wrong with the body must not be found once the call is counted.
    request = accepted.upstream_request(context.env)  # 400
    context.breakers.raise_if_all_open(rates, principal.payer)  # 503
    call = await context.tracker.admit(  # 402, 429, 503
        principal, accepted.intent(), rates, size=accepted.size, most_tokens=accepted.most_tokens
    )
    if accepted.request.hosted and (least := accepted.least_usage()) is not None:
        call.meter.record_usage(least)  # before any attempt: what the provider tells then counts instead
    upstream = Upstream(context.pool, context.breakers, context.retries, call, request)
    incoming.admission = call.admission
    incoming.watch(upstream.abort)
    call.shutdown.on_set(upstream.abort)
    capture = CapturingResponse(incoming, accepted.raw) if principal.keeps_content else None
    response: Response = capture or incoming
    stream: relay.StreamRelay | None = None
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
                    headers=lambda model: response_headers(accepted.route, model, call.admission),
                )
            try:
                opened = await upstream.open_first(attempts)  # 4xx of the upstream, 429, 503, 504
            except AppError as error:
                if stream is None or not stream.is_started:
                    raise
                await stream.break_off(error)
                return
            model = opened.attempt.model
            if response_format.names_model and (other := other_model_in(opened.first, model)) is not None:
                rates_of_other = accepted.rates_of(other)
                context.substitutes.note(model, other, is_priced=rates_of_other is not None)
                if rates_of_other is not None:
                    call.record_served(*rates_of_other)
            incoming.dropped += accepted.left_out(model)
            if stream is not None:
                await stream.send(opened, idle_s=request.silence_s(model, request.idle_s))
            else:
                await relay.send_body(response, call, opened, response_headers(accepted.route, model, call.admission))
    finally:
        if stream is not None:
            stream.close()
        if capture is not None:
            context.content.publish(call.request_id, principal.organization_id, capture.content)


def response_headers(route: Route, model: str, admission: Admission) -> list[Header]:
    """Headers of every response: its routing and the daily limit."""
    return routing_headers(route, model) + admission.headers()


def routing_headers(route: Route, model: str) -> list[Header]:
    """Headers that tell how a request was routed."""
    return [
        (b"x-cfx-stage", route.stage.encode()),
        (b"x-cfx-stage-reason", route.reason.encode()),
        (b"x-cfx-model", model.encode("latin-1", "replace")),
    ]
