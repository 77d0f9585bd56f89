"""Traces of calls, sent over OTLP. Imported only where OTEL_EXPORTER_OTLP_ENDPOINT is set.

`Tracing` puts spans around functions of this process when it starts and takes them off when it ends, so that a call
costs nothing where there are none. Attributes come from closed sets, and from the numbers of the usage event: no
prompt, no key, no address. Of what the caller sends only `traceparent` is read.
"""

# ruff: noqa: E402 - the entry is taken away before the first import of what it hides
import sys

from codexflow import OPENTELEMETRY

sys.modules.pop(OPENTELEMETRY, None)

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from codexflow.env import Env
from codexflow.lib.asgi import Header
from codexflow.lib.errors import AppError
from keys.lookup import PrincipalCache
from keys.principal import Principal
from logs.pipeline.events import UsageEvent
from routing import chat, relay
from routing.context import GatewayContext
from routing.errors import UpstreamFailure
from routing.incoming import Incoming
from routing.settler import Settler
from routing.surfaces.table import Surface
from routing.tracker import CallTracker
from routing.upstream.attempts import Attempt
from routing.upstream.open import OpenedResponse, Upstream
from routing.upstream.pool import Connection, Pool

EXPORT_TIMEOUT_S = 5
PATH = "/v1/traces"
TRACEPARENT = "traceparent"

_call: ContextVar[Span | None] = ContextVar("call", default=None)
_propagator = TraceContextTextMapPropagator()
Attributes = Mapping[str, str | int | bool]


class Tracing:
    """Spans around the calls of one process: auth, admit, upstream (one an attempt), relay, settle."""

    def __init__(self, env: Env, *, keys: PrincipalCache, tracker: CallTracker, settler: Settler, pool: Pool) -> None:
        exporter = OTLPSpanExporter(
            f"{env.otlp_endpoint}{PATH}", headers=_headers_of(env.otlp_headers), timeout=EXPORT_TIMEOUT_S
        )
        resource = Resource.create({"service.name": env.otel_service_name})
        self._provider = TracerProvider(ParentBased(TraceIdRatioBased(env.trace_ratio)), resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("codexflow")
        self._replaced: list[tuple[Any, str, Any]] = []
        self._replace(chat, "serve", self._serve(chat.serve))
        self._replace(keys, "authenticate", self._within("auth", keys.authenticate))
        self._replace(tracker, "admit", self._within("admit", tracker.admit))
        self._replace(settler, "settle", self._settle(settler.settle))
        self._replace(pool, "post", self._post(pool.post))
        self._replace(Upstream, "_try", self._attempt(Upstream._try))
        self._replace(relay, "send_body", self._within("relay", relay.send_body))
        self._replace(relay.StreamRelay, "send", self._within("relay", relay.StreamRelay.send))

    def stop(self) -> None:
        """Put everything back as it was, and send what waits. Blocks for some seconds at most."""
        for owner, name, original in reversed(self._replaced):
            setattr(owner, name, original)
        self._provider.shutdown()

    def _replace(self, owner: Any, name: str, replacement: Any) -> None:
        self._replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, replacement)

    @contextmanager
    def _span(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: Context | None = None,
    ) -> Iterator[Span]:
        """Open a span. An exception leaves its code or type, never its text."""
        with self._tracer.start_as_current_span(
            name, parent, kind, dict(attributes or {}), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as exc:
                if isinstance(exc, AppError):
                    status = exc.upstream_status if isinstance(exc, UpstreamFailure) else int(exc.status)
                    if status is not None:
                        span.set_attribute("http.response.status_code", status)
                span.set_attribute("error.type", exc.code if isinstance(exc, AppError) else type(exc).__name__)
                span.set_status(StatusCode.ERROR)
                raise

    def _within(self, name: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Put a span around what a call does; nothing else gets one."""

        async def traced(*args: Any, **named: Any) -> Any:
            if _call.get() is None:
                return await function(*args, **named)
            with self._span(name):
                return await function(*args, **named)

        return traced

    def _serve(self, function: Callable[[GatewayContext, Incoming, Surface], Awaitable[None]]) -> Callable[..., Any]:
        async def traced(context: GatewayContext, incoming: Incoming, surface: Surface) -> None:
            # Not `tracestate`, which has whatever its caller likes.
            parent = _propagator.extract({TRACEPARENT: incoming.header(TRACEPARENT.encode())}, Context())
            attributes = {
                "http.request.method": "POST",
                "http.route": surface.path,
                "codexflow.surface": surface.name,
                "codexflow.request_id": str(incoming.request_id),
            }
            with self._span(f"POST {surface.path}", attributes, kind=SpanKind.SERVER, parent=parent) as span:
                token = _call.set(span)
                try:
                    await function(context, incoming, surface)
                finally:
                    _call.reset(token)

        return traced

    def _settle(self, function: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
        settle = self._within("settle", function)

        async def traced(principal: Principal, event: UsageEvent, *, is_leased: bool = True) -> None:
            if (span := _call.get()) is not None:
                span.set_attributes(_facts_of(event))
                if event.error_code:
                    span.set_status(StatusCode.ERROR)
            await settle(principal, event, is_leased=is_leased)

        return traced

    def _attempt(self, function: Callable[[Upstream, Attempt], Awaitable[OpenedResponse]]) -> Callable[..., Any]:
        async def traced(upstream: Upstream, attempt: Attempt) -> OpenedResponse:
            attributes: Attributes = {"gen_ai.request.model": attempt.model, "codexflow.attempt": attempt.n}
            with self._span("upstream", attributes, kind=SpanKind.CLIENT):
                return await function(upstream, attempt)

        return traced

    def _post(self, function: Callable[..., Awaitable[Connection]]) -> Callable[..., Any]:
        async def traced(path: str, body: bytes, *, headers: Sequence[Header] = ()) -> Connection:
            carrier: dict[str, str] = {}
            _propagator.inject(carrier)
            own = [(TRACEPARENT.encode(), carrier[TRACEPARENT].encode())] if TRACEPARENT in carrier else []
            return await function(path, body, headers=[*headers, *own])

        return traced


def _headers_of(text: str) -> dict[str, str]:
    """Parse the standard variable: name=value, comma-separated, values percent-encoded."""
    pairs = (each.partition("=") for each in text.split(",") if "=" in each)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def _facts_of(event: UsageEvent) -> Attributes:
    """Facts of a finished call, as its usage event has them."""
    facts: dict[str, str | int | bool] = {
        "http.response.status_code": event.status,
        "gen_ai.response.model": event.model,
        "gen_ai.usage.input_tokens": event.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": event.usage.completion_tokens,
        "codexflow.stage": event.stage,
        "codexflow.is_stream": event.is_stream,
        "codexflow.is_disconnected": event.is_disconnected,
        "codexflow.cost_nano_usd": event.cost_nanos,
    }
    return facts | ({"error.type": event.error_code} if event.error_code else {})
