"""UsageEvent: the facts of one finished call, from the gateway to the worker. Pure.

The same structure, filled as far as it is known at admission, is the call's intent: if the process dies afterwards, the
sweeper finishes the call from it.
"""

from collections import Counter
from collections.abc import Iterable
from uuid import UUID

import msgspec
from msgspec import Struct

from billing.pricing import FrozenRates, Usage, cost_nanos
from billing.usage import with_units_of_call

# Rank of a usage fact by its source; a higher rank replaces a lower one.
RANK_PROVIDER = 40  # the gateway saw the provider's usage
RANK_DISBELIEVED = 35  # the gateway counted, because the provider told more than can be, which LiteLLM only repeats
RANK_LITELLM = 30  # LiteLLM reported it
RANK_COUNTED = 20  # the gateway counted what it delivered
RANK_PROGRESS = 10  # the last heartbeat before its process died
RANK_NONE = 0

# The planner's decision of a request that several calls answer. Only such a request has parts.
PLANNED = "planned"


def is_estimated(rank: int) -> bool:
    """Return whether usage of this rank was counted here, not reported by a provider or LiteLLM."""
    return RANK_NONE < rank < RANK_LITELLM or rank == RANK_DISBELIEVED


class PlannedPart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attempt of a planned request: it is charged by itself, at its own model's price.

    `kind`: planner, chunk, summary, or one-pass where the plan was given up. The row's usage is the sum of all.
    """

    kind: str
    title: str = ""
    usage: Usage = Usage()
    rank: int = RANK_NONE
    rates: FrozenRates
    # As in the event, until the attempt has ended.
    prompt_tokens_guess: int = 0

    @property
    def cost_nanos(self) -> int:
        return cost_nanos(self.usage, self.rates)


class AttemptFact(Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"started_offset_ms": "started_ms"}):
    """One try at one model. Status 0: no response.

    `started_offset_ms` counts from the request's start, `first_byte_ms` and `duration_ms` from the attempt's. The
    offset keeps its old name in events, which wait in streams and journals while a release is replaced by the next.
    """

    n: int
    model: str
    status: int = 0
    error_code: str = ""
    started_offset_ms: int = 0
    first_byte_ms: int | None = None
    duration_ms: int = 0
    response_id: str = ""
    part: PlannedPart | None = None


class UsageEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One admitted call, however it ended.

    `day` and `minute` count from 1970 by Redis's clock at admission, `started_ms` is Unix time by the gateway's.
    `cost_nanos` is always `charge_of(event)`: the worker checks it.
    """

    request_id: UUID
    organization_id: UUID
    key_id: UUID
    user_id: int | None = None
    day: int = 0
    minute: int = 0
    started_ms: int
    surface: str
    endpoint: str
    stage: str
    stage_reason: str
    requested_model: str = ""
    model: str = ""
    status: int = 0
    error_code: str = ""
    usage: Usage = Usage()
    rank: int = RANK_NONE
    rates: FrozenRates
    cost_nanos: int = 0
    upstream_cost_nanos: int | None = None
    hold_nanos: int = 0
    tokens_reserved: int = 0
    # Expected prompt tokens, for calls without reported usage.
    prompt_tokens_guess: int = 0
    # The same of the units by which such a call may be sold; None: it is sold by tokens only.
    units_guess: dict[str, int] | None = None
    # Units of hosted tools that the call uses at least, whether or not the provider counts them.
    least_units: dict[str, int] | None = None
    catalogue_version: str = ""
    latency_ms: int = 0
    ttft_ms: int | None = None
    is_stream: bool = False
    is_disconnected: bool = False
    is_degraded: bool = False
    attempts: tuple[AttemptFact, ...] = ()
    source: str = "gateway"
    client_address: str | None = None
    user_agent: str = ""
    # Of a key that succeeded another one: the first of its lineage, for which limits count.
    first_key_id: UUID | None = None

    # The caller's own name for what the call is spent on.
    tag: str = ""
    # The tag's budget by which it was admitted, if the tag has a hard one.
    tag_budget_id: UUID | None = None
    # Outcome of the planner's decision; empty where there was nothing to decide.
    planner: str = ""

    @property
    def lineage_id(self) -> UUID:
        return self.first_key_id or self.key_id

    @property
    def parts(self) -> tuple[PlannedPart, ...]:
        """The parts of a planned request; empty for all others."""
        return tuple(each.part for each in self.attempts if each.part is not None) if self.planner == PLANNED else ()


def charge_of(event: UsageEvent) -> int:
    """Cost for the customer, in nanos: of the usage, or of all parts of a planned request."""
    if parts := event.parts:
        return sum([part.cost_nanos for part in parts])
    return cost_nanos(event.usage, event.rates)


def sum_of(parts: Iterable[PlannedPart]) -> tuple[Usage, int]:
    """Return usage and rank of a planned request: the sum, known as well as its least known part that used anything."""
    sums: Counter[str] = Counter()
    details: Counter[str] = Counter()
    ranks = []
    for part in parts:
        sums.update({name: getattr(part.usage, name) for name in _COUNTS})
        details.update(part.usage.details or {})
        if part.rank > RANK_NONE:
            ranks.append(part.rank)
    return Usage(**sums, details=dict(details) or None), min(ranks, default=RANK_NONE)


class BadEvent(ValueError):
    """The bytes are not an event, or contradict themselves."""


_COUNTS = tuple(name for name in Usage.__struct_fields__ if name != "details")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(UsageEvent)


def encode(event: UsageEvent) -> bytes:
    return _encoder.encode(event)


def decode(payload: bytes) -> UsageEvent:
    """Decode an event. Raises BadEvent when it is none, or when its cost does not follow from its usage."""
    try:
        event = _decoder.decode(payload)
    except msgspec.MsgspecError as exc:
        raise BadEvent(f"not an event: {exc}") from exc
    expected = charge_of(event)
    if event.cost_nanos != expected:
        raise BadEvent(f"cost {event.cost_nanos} does not follow from usage and rates ({expected})")
    usage = event.usage
    parts = (
        usage.cached_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens, *(usage.details or {}).values()
    )  # fmt: skip
    if min(usage.prompt_tokens, usage.completion_tokens, *parts) < 0:
        raise BadEvent("negative tokens")
    return event


class _Head(Struct, frozen=True):
    request_id: UUID
    status: int = 0


_head_decoder = msgspec.msgpack.Decoder(_Head)


def request_id_of(payload: bytes) -> UUID:
    """Request id of an encoded event, without decoding the rest. Raises BadEvent."""
    return _head_of(payload).request_id


def is_intent(payload: bytes) -> bool:
    """Return whether an encoded event is an intent: the call had not ended yet. Raises BadEvent."""
    return _head_of(payload).status == 0


def _head_of(payload: bytes) -> _Head:
    try:
        return _head_decoder.decode(payload)
    except msgspec.MsgspecError as exc:
        raise BadEvent(f"not an event: {exc}") from exc


def read_progress(text: str) -> int | dict[int, int] | None:
    """Read a heartbeat's progress: the tokens delivered, of a planned request those of its attempts by their numbers.

    None: nothing had reached the caller.
    """
    if ":" not in text:
        return int(text) if text else None
    return {int(n): int(tokens) for n, _, tokens in (each.partition(":") for each in text.split(","))}


def orphaned(intent: UsageEvent, *, progress: int | dict[int, int] | None, now_ms: int) -> UsageEvent:
    """Event of a call whose process died: its delivered tokens are charged, and marked as estimated.

    `progress` is None when no byte had reached the caller; then nothing is charged, but for the parts of a plan that
    had ended.
    """
    attempts = intent.attempts
    if intent.parts:
        delivered = progress if isinstance(progress, dict) else {}
        attempts = tuple(_orphaned_part(each, delivered.get(each.n)) for each in attempts)
        usage, rank = sum_of([each.part for each in attempts if each.part is not None])
    elif not isinstance(progress, int):
        usage, rank = Usage(), RANK_NONE
    else:
        usage = Usage(prompt_tokens=intent.prompt_tokens_guess, completion_tokens=progress, details=intent.least_units)
        if intent.units_guess:
            usage, _ = with_units_of_call(usage, intent.units_guess, intent.rates)
        rank = RANK_PROGRESS
    event = msgspec.structs.replace(
        intent,
        status=500,
        error_code="gateway_lost",
        usage=usage,
        rank=rank,
        latency_ms=max(0, now_ms - intent.started_ms),
        attempts=attempts,
        source="sweeper",
    )
    return msgspec.structs.replace(event, cost_nanos=charge_of(event))


def _orphaned_part(attempt: AttemptFact, delivered_tokens: int | None) -> AttemptFact:
    part = attempt.part
    if part is None or part.rank > RANK_NONE or delivered_tokens is None:
        return attempt
    usage = Usage(prompt_tokens=part.prompt_tokens_guess, completion_tokens=delivered_tokens)
    return msgspec.structs.replace(attempt, part=msgspec.structs.replace(part, usage=usage, rank=RANK_PROGRESS))
