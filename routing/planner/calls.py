"""One call of a planned request: planner, part, summary or one pass, all with the same limits, retries and record."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from billing.limiter.holds import CallSize, worst_nanos
from billing.pricing import FrozenRates
from codexflow.lib.errors import AppError
from logs.pipeline.events import AttemptFact, PlannedPart, UsageEvent
from routing.accept import AcceptedCall
from routing.call import Call, ShutdownSignal
from routing.context import GatewayContext
from routing.errors import ClientDisconnected, ShuttingDown, StreamBroken, UpstreamFailure
from routing.meter import Meter
from routing.planner.draws import Draws
from routing.planner.quote import sized
from routing.relay import LAST_CHUNK_S
from routing.surfaces import body, sse
from routing.surfaces.served import other_model
from routing.surfaces.table import CHAT
from routing.upstream.attempts import plan_attempts
from routing.upstream.open import OpenedResponse, Upstream, UpstreamRequest

logger = logging.getLogger(__name__)

OnText = Callable[[str], Awaitable[None]]
CUT_OFF = "length"


class Work(Struct, frozen=True, kw_only=True):
    """Task of one call.

    `raw` is its chat body without a model, `rates` its models in the order in which they are tried.
    """

    kind: str
    title: str = ""
    raw: bytes
    rates: Mapping[str, FrozenRates]
    timeout_s: float


class Written(Struct, frozen=True, kw_only=True):
    """Result of a call: its text, its end and its cost. `error`: it failed, perhaps in the middle."""

    text: str = ""
    stop_reason: str = ""
    model: str = ""
    cost_nanos: int = 0
    error: AppError | None = None

    @property
    def is_cut_off(self) -> bool:
        return self.stop_reason == CUT_OFF or (self.error is not None and bool(self.text.strip()))


class _Delta(Struct):
    content: str | None = None


class _Choice(Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(Struct):
    choices: list[_Choice] = []


_chunk = msgspec.json.Decoder(_Chunk)


class _PartCall:
    """The part of a `Call` that the upstream needs, of one call among several."""

    def __init__(self, call: Call, intent: UsageEvent, meter: Meter) -> None:
        self._call = call
        self.intent = intent
        self.meter = meter
        self.attempts: list[AttemptFact] = []

    @property
    def request_id(self) -> UUID:
        return self._call.request_id

    @property
    def shutdown(self) -> ShutdownSignal:
        return self._call.shutdown

    def elapsed_ms(self) -> int:
        return self._call.elapsed_ms()


class PartRunner:
    """Makes the calls of one planned request. `abort` may be called at any moment."""

    def __init__(self, context: GatewayContext, accepted: AcceptedCall, draws: Draws) -> None:
        self._context = context
        self._accepted = accepted
        self._draws = draws
        self._upstreams: set[Upstream] = set()
        self.is_aborted = False

    def abort(self) -> None:
        """Stop all calls: the caller has left, or the process is shutting down."""
        self.is_aborted = True
        for upstream in tuple(self._upstreams):
            upstream.abort()

    def most_nanos(self, work: Work) -> int:
        """Return the most that a call can cost."""
        return worst_nanos(self._sized(work)[1], work.rates)

    def _sized(self, work: Work) -> tuple[body.ParsedRequest, CallSize]:
        return sized(work.raw, tuple(work.rates), self._accepted.catalogue)

    async def run(self, work: Work, *, most_nanos: int, on_text: OnText | None = None) -> Written:
        """Make a call for which the purse has set `most_nanos` aside. Never raises for a failure of the call itself.

        Raises ClientDisconnected and ShuttingDown.
        """
        context, call = self._context, self._draws.call
        request, size = self._sized(work)
        models = tuple(work.rates)
        payer = self._accepted.principal.payer
        meter = Meter(size.completion_tokens)
        guess = size.guess(models[0])
        attempts = plan_attempts(models, context.breakers.open_for(models, payer))
        first = self._draws.numbers(max(1, len(attempts)))
        attempts = tuple(replace(each, n=first + each.n - 1) for each in attempts)
        intent = replace(call.intent, model=models[0], prompt_tokens_guess=guess)
        part_call = _PartCall(call, intent, meter)
        upstream = Upstream(
            context.pool, context.breakers, context.retries, part_call, self._request(request, work, size)
        )
        part = PlannedPart(kind=work.kind, title=work.title, rates=work.rates[models[0]], prompt_tokens_guess=guess)
        await self._draws.begin(first, part, models[0], meter)
        self._upstreams.add(upstream)
        reader = _Reader(meter, on_text)
        error: AppError | None = None
        rates: tuple[str, FrozenRates] | None = None
        try:
            if self.is_aborted:
                upstream.abort()
            opened = await upstream.open_first(attempts)
            if (other := other_model(opened.identity.model, opened.attempt.model)) is not None:
                rates = self._accepted.rates_of(other)
                context.substitutes.note(opened.attempt.model, other, is_priced=rates is not None)
            await self._read(opened, upstream, reader)
        except AppError as exc:
            error = exc
        finally:
            upstream.abort()
            self._upstreams.discard(upstream)
            ended = self._ended(part_call, work, guess, rates)
            cost_nanos = sum([each.part.cost_nanos for each in ended if each.part is not None])
            self._draws.purse.pay(most_nanos, cost_nanos)
            await self._draws.end(first, ended, meter)
        if isinstance(error, ClientDisconnected | ShuttingDown):
            raise error
        if error is not None:
            logger.warning(
                "planner.part_failed",
                extra={"request_id": str(call.request_id), "kind": work.kind, "code": error.code, **error.facts},
            )
        model = ended[-1].model if ended else models[0]
        return Written(
            text=reader.text, stop_reason=reader.stop_reason, model=model, cost_nanos=cost_nanos, error=error
        )

    def _request(self, request: body.ParsedRequest, work: Work, size: CallSize) -> UpstreamRequest:
        accepted, env = self._accepted, self._context.env
        entries = accepted.catalogue.entries

        def fit(model: str) -> body.Fit:
            entry = entries[model]
            max_tokens = min(size.max_output_tokens, entry.max_output_tokens or size.max_output_tokens)
            return body.Fit(max_tokens, None, body.refused_fields(entry.takes))

        return UpstreamRequest(
            path=CHAT.path,
            tail_of=body.Tails(request, fit).of,
            response_format=CHAT.response_format,
            is_stream=True,
            first_byte_s=work.timeout_s,
            idle_s=env.upstream_idle_s,
            total_s=work.timeout_s,
            response_limit_bytes=env.answer_limit_bytes,
            breaker=accepted.catalogue.breaker,
            payer=accepted.principal.payer,
            entries=entries,
        )

    async def _read(self, opened: OpenedResponse, upstream: Upstream, reader: "_Reader") -> None:
        """Read a stream to its end. Raises StreamBroken, ClientDisconnected and ShuttingDown."""
        assert opened.opening is not None  # noqa: S101 - streams have one
        reader.meter.begin(opened.opening.output)
        for n, event in enumerate(opened.opening.events):
            if await reader.take(event, is_counted=n < opened.opening.counted):
                await self._close(opened)
                return
        splitter, idle_s = opened.opening.splitter, self._context.env.upstream_idle_s
        while opened.connection is not None:
            try:
                chunk = await opened.connection.chunk(min(idle_s, upstream.left_s))
            except UpstreamFailure as exc:
                if self._draws.call.shutdown.is_set:
                    raise ShuttingDown from exc
                if self.is_aborted:
                    raise ClientDisconnected from exc
                raise StreamBroken(reason=exc.code) from exc
            if chunk is None:
                opened.connection = None
                upstream.release()
            for event in splitter.feed(chunk) if chunk is not None else splitter.flush():
                if await reader.take(event):
                    await self._close(opened)
                    upstream.release()
                    return
        if reader.meter.stop_reason is None:
            raise StreamBroken(reason="no end")
        reader.meter.end()

    @staticmethod
    async def _close(opened: OpenedResponse) -> None:
        if opened.connection is not None:
            await opened.connection.read_to_end(LAST_CHUNK_S)

    def _ended(
        self, part_call: _PartCall, work: Work, guess: int, served: tuple[str, FrozenRates] | None
    ) -> list[AttemptFact]:
        """Attempts of a call that has ended, the last one that responded with usage and price."""
        attempts = part_call.attempts
        elapsed_ms = part_call.elapsed_ms()
        ended: list[AttemptFact] = []
        for fact in attempts:
            part = PlannedPart(kind=work.kind, title=work.title, rates=work.rates[fact.model])
            if fact.first_byte_ms is not None:
                model, rates = served or (fact.model, part.rates)
                usage, rank = self._draws.call.believable(part_call.meter, model, guess)
                part = replace(part, usage=usage, rank=rank, rates=rates)
                fact = replace(fact, model=model, duration_ms=elapsed_ms - fact.started_offset_ms)
            ended.append(replace(fact, part=part))
        return ended


class _Reader:
    """Takes the events of a chat stream: meters them and collects their text."""

    def __init__(self, meter: Meter, on_text: OnText | None) -> None:
        self.meter = meter
        self._on_text = on_text
        self._pieces: list[str] = []
        self.stop_reason = ""

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    async def take(self, event: sse.Event, *, is_counted: bool = False) -> bool:
        """Take one event. Returns whether it was the last. Raises StreamBroken."""
        if event.usage is not None:
            self.meter.record_usage(event.usage)
        if event.kind in (sse.Kind.ERROR, sse.Kind.BROKEN):
            raise StreamBroken(reason="error event" if event.kind is sse.Kind.ERROR else "broken JSON")
        if event.kind is sse.Kind.END:
            self.meter.end()
            return True
        if event.kind is sse.Kind.CONTENT:
            if not is_counted:
                self.meter.record_delivery(event.raw)
            await self._take_text(event.raw)
        return False

    async def _take_text(self, raw: bytes) -> None:
        try:
            choices = _chunk.decode(sse.data_of(raw)).choices
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return  # it is metered, and has no text that could be joined
        for choice in choices[:1]:
            self.stop_reason = choice.finish_reason or self.stop_reason
            if choice.delta is not None and choice.delta.content:
                self._pieces.append(choice.delta.content)
                if self._on_text is not None:
                    await self._on_text(choice.delta.content)
