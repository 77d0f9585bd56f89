"""One call in flight, from its admission to its usage event.

However a call ends (response, error, disconnect, shutdown), `finish` runs once: it leaves the registry, and the event
goes into the journal and is settled. Only after that do the last bytes go out: what a caller saw complete is durable. A
call that dies before `finish` is found by the sweeper, through the intent that admission wrote.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from uuid import UUID

import msgspec

from billing.limiter.limits import Admission
from billing.pricing import FrozenRates, Usage, cost_nanos
from billing.usage import MOST_UNITS, is_possible, most_units
from codexflow.lib import clock
from codexflow.lib.errors import AppError
from keys.principal import Principal
from logs.pipeline.events import RANK_COUNTED, RANK_DISBELIEVED, AttemptFact, UsageEvent, charge_of, sum_of
from routing.errors import ClientDisconnected
from routing.meter import Meter
from routing.settler import Settler

logger = logging.getLogger(__name__)

# Model -> the most tokens that a call may have it read and write.
MostTokens = Callable[[str], tuple[int, int]]

# As many as are stored of the id that LiteLLM reports for the same attempt.
MAX_RESPONSE_ID_CHARS = 200


class _Nothing:
    """Awaitable that is done."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value] # which ends as a generator does


NOTHING = _Nothing()


class ShutdownSignal:
    """Tells one call that its process must end. Sent by the shutdown manager, read by upstream and relay."""

    __slots__ = ("_callback", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._callback: Callable[[], None] | None = None

    def set(self) -> None:
        """End the call, unless it is finished: its response or stream turns into an error."""
        self.is_set = True
        if self._callback is not None:
            self._callback()

    def on_set(self, callback: Callable[[], None]) -> None:
        """Register the function that interrupts the call."""
        self._callback = callback

    def detach(self) -> None:
        """Drop the callback. It refers to the call, and that cycle would be left to the garbage collector."""
        self._callback = None


class Call:
    """One admitted call until it is settled.

    Each field has one writer:

    - routing/tracker.py creates the call with everything that admission decided; those fields never change.
    - `attempts` is appended to by routing/upstream/open.py.
    - `meter` is never replaced; chat, upstream and relay call its methods.
    - `shutdown` is set by routing/shutdown.py.
    - `is_finished` and `served` are written here, and `is_leased`.
    - `intent` and `parts` change here, for a planned request (routing/planner/draws.py).
    """

    __slots__ = (
        "_leave", "_most_tokens", "_settler", "admission", "attempts", "intent", "is_finished", "is_leased", "meter",
        "parts", "principal", "rates", "served", "shutdown", "started_s",
    )  # fmt: skip

    def __init__(
        self,
        *,
        principal: Principal,
        intent: UsageEvent,
        rates: dict[str, FrozenRates],
        admission: Admission,
        meter: Meter,
        started_s: float,
        settler: Settler,
        leave: Callable[["Call"], None],
        most_tokens: MostTokens,
    ) -> None:
        self.principal = principal
        self.intent = intent
        # The models that may be tried, with their prices: the hold covers each of them.
        self.rates = rates
        self.admission = admission
        self.meter = meter
        self.started_s = started_s
        self.attempts: list[AttemptFact] = []
        self.shutdown = ShutdownSignal()
        self.is_finished = False
        # Redis may have its lease, which only heartbeats write.
        self.is_leased = False
        # Meters of the parts in progress, by their attempts' numbers; None of a request that is no planned one.
        self.parts: dict[int, Meter] | None = None
        # The model that the response named and its price, where it is another one than was asked.
        self.served: tuple[str, FrozenRates] | None = None
        self._settler = settler
        self._leave = leave
        self._most_tokens = most_tokens

    @property
    def request_id(self) -> UUID:
        return self.intent.request_id

    def elapsed_ms(self) -> int:
        return int((clock.monotonic_s() - self.started_s) * 1000)

    @property
    def progress(self) -> str:
        """For the heartbeat: the tokens delivered, of a planned request those of each part in progress."""
        if self.parts is None:
            return self.meter.progress
        return ",".join([f"{n}:{meter.delivered_tokens()}" for n, meter in self.parts.items() if meter.has_begun])

    def begin_parts(self) -> dict[int, Meter]:
        """The request is a planned one: its attempts are charged each by itself. Returns the meters in progress."""
        self.parts = {}
        return self.parts

    def add_parts(self, attempts: list[AttemptFact], upstream_cost_nanos: int | None) -> None:
        """Record the attempts of a part that has ended, and what they cost upstream."""
        self.attempts = [*self.attempts, *attempts]
        self.meter.add_upstream_cost(upstream_cost_nanos)

    def amend(self, intent: UsageEvent) -> None:
        """Replace what is known of the call, should this process die."""
        self.intent = intent

    def record_lease(self) -> None:
        """Redis is being told of the call's lease, which its settlement has to remove."""
        self.is_leased = True

    def record_served(self, model: str, rates: FrozenRates) -> None:
        """The response is of another model than was asked: it is charged by what served."""
        self.served = model, rates

    def __aenter__(self) -> Awaitable[None]:
        return NOTHING

    def __aexit__(self, _kind: object, exc: BaseException | None, _traceback: object) -> Awaitable[None]:
        """Finish a call that was left unfinished as failed; a cancellation must not lose it either."""
        if self.is_finished:
            return NOTHING
        error = exc if isinstance(exc, AppError) else AppError(reason=repr(exc))
        is_gone = isinstance(exc, ClientDisconnected)
        return asyncio.shield(self.finish(status=int(error.status), error=error, is_disconnected=is_gone))

    def finish(self, *, status: int, error: AppError | None = None, is_disconnected: bool = False) -> Awaitable[None]:
        """Record and settle the call. The first time counts; every later one does nothing."""
        if self.is_finished:
            return NOTHING
        self.is_finished = True
        self.shutdown.detach()
        self._leave(self)  # before settling, so that no heartbeat restores a settled call
        event = self._event(status, error, is_disconnected=is_disconnected)
        return self._settler.settle(self.principal, event, is_leased=self.is_leased)

    def _event(self, status: int, error: AppError | None, *, is_disconnected: bool) -> UsageEvent:
        intent, admission, attempts = self.intent, self.admission, self.attempts
        model, ttft_ms, elapsed_ms = intent.model, None, self.elapsed_ms()
        if self.parts is not None:
            return self._planned_event(status, error, is_disconnected=is_disconnected)
        if attempts:
            last = attempts[-1]
            model = last.model
            if last.first_byte_ms is not None:
                ttft_ms = last.started_offset_ms + last.first_byte_ms
                attempts = [*attempts[:-1], self._completed(last, elapsed_ms)]
        rates = self.rates.get(model, intent.rates)
        if self.served is not None:
            model, rates = self.served
        usage, rank = self._usage(rates)
        # Nearly always at most what was reserved: only beyond it a call's bounds are worked out.
        is_large = usage.total_tokens > intent.tokens_reserved or most_units(usage) > MOST_UNITS
        if is_large and not self._is_possible(model, usage):
            self.meter.disbelieve()
            usage, rank = self._usage(rates)
            rank = RANK_DISBELIEVED if rank == RANK_COUNTED else rank
        return msgspec.structs.replace(
            intent,
            day=admission.day,
            minute=admission.minute,
            is_degraded=admission.is_degraded,
            model=model,
            status=status,
            error_code=error.code if error else "",
            usage=usage,
            rank=rank,
            rates=rates,
            cost_nanos=cost_nanos(usage, rates),
            upstream_cost_nanos=self.meter.upstream_cost_nanos,
            latency_ms=elapsed_ms,
            ttft_ms=ttft_ms,
            is_disconnected=is_disconnected,
            attempts=tuple(attempts),
        )

    def _planned_event(self, status: int, error: AppError | None, *, is_disconnected: bool) -> UsageEvent:
        """Event of a planned request: each attempt has its own usage and price already."""
        intent, admission, attempts = self.intent, self.admission, tuple(self.attempts)
        usage, rank = sum_of([each.part for each in attempts if each.part is not None])
        begun = [each.started_offset_ms + each.first_byte_ms for each in attempts if each.first_byte_ms is not None]
        event = msgspec.structs.replace(
            intent,
            day=admission.day,
            minute=admission.minute,
            is_degraded=admission.is_degraded,
            status=status,
            error_code=error.code if error else "",
            usage=usage,
            rank=rank,
            upstream_cost_nanos=self.meter.upstream_cost_nanos,
            latency_ms=self.elapsed_ms(),
            ttft_ms=min(begun, default=None),
            is_disconnected=is_disconnected,
            attempts=attempts,
        )
        return msgspec.structs.replace(event, cost_nanos=charge_of(event))

    def believable(self, meter: Meter, model: str, prompt_tokens_guess: int) -> tuple[Usage, int]:
        """Return usage and rank of a part; one that cannot be is counted here instead."""
        usage, rank = meter.usage(prompt_tokens_guess)
        if self._is_possible(model, usage):
            return usage, rank
        meter.disbelieve()
        usage, rank = meter.usage(prompt_tokens_guess)
        return usage, RANK_DISBELIEVED if rank == RANK_COUNTED else rank

    def _usage(self, rates: FrozenRates) -> tuple[Usage, int]:
        guess, units = self.intent.prompt_tokens_guess, self.intent.units_guess
        return self.meter.usage_by_the_call(guess, units, rates) if units else self.meter.usage(guess)

    def _is_possible(self, model: str, usage: Usage) -> bool:
        """Return whether the call can have had this usage; else raise the alarm."""
        prompt, completion = self._most_tokens(model)
        if is_possible(usage, prompt_tokens=prompt, completion_tokens=completion):
            return True
        logger.error(
            "usage.impossible",
            extra={
                "request_id": str(self.request_id),
                "model": model,
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "most_prompt_tokens": prompt,
                "most_completion_tokens": completion,
                "units": most_units(usage),
            },
        )
        return False

    def _completed(self, attempt: AttemptFact, elapsed_ms: int) -> AttemptFact:
        """Complete the attempt that gave the response: it lasted until now."""
        return msgspec.structs.replace(
            attempt,
            duration_ms=elapsed_ms - attempt.started_offset_ms,
            # PostgreSQL stores no NUL; a provider might send one, and might send more than the journal takes.
            response_id=attempt.response_id.replace("\0", "")[:MAX_RESPONSE_ID_CHARS],
        )
