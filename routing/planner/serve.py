"""One planned request, start to end: plan, quote, parts, joined answer. Read this first."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from billing.errors import InsufficientQuota, LimiterUnavailable, RateLimitExceeded
from billing.limiter.holds import worst_nanos
from billing.pricing import FrozenRates
from codexflow.lib.asgi import Header
from codexflow.lib.clock import monotonic_s
from codexflow.lib.errors import AppError
from codexflow.lib.ids import new_id
from codexflow.lib.money import format_usd
from logs.pipeline.events import PLANNED
from routing.accept import AcceptedCall
from routing.content_capture import CapturingResponse, Response
from routing.context import GatewayContext
from routing.errors import ClientDisconnected, MaxCostExceeded, StreamBroken
from routing.headers import response_headers
from routing.incoming import Incoming
from routing.planner import prompts
from routing.planner.assembly import Assembly, note_of
from routing.planner.calls import OnText, PartRunner, Work, Written
from routing.planner.draws import Draws
from routing.planner.engage import Mode
from routing.planner.plan import BadPlan, Plan, read_plan
from routing.planner.purse import Purse, limit_of
from routing.planner.quote import CONTINUATIONS, Quote, least_part_nanos, quote_of, rates_of, sized
from routing.planner.request import Planning
from routing.planner.store import DonePart, KeptPlan, digest_of, find, keep
from routing.planner.writers import BodyWriter, StreamWriter, Writer
from routing.surfaces.bounds import reserved_tokens

JSON: Header = (b"content-type", b"application/json")
COST, TIME, CREDIT, FAILED, LENGTH = "cost", "time", "credit", "failed", "length"
_encode = msgspec.json.encode


async def serve(context: GatewayContext, incoming: Incoming, accepted: AcceptedCall, planning: Planning) -> bool:
    """Serve a request in parts. Returns False, having done nothing, where one pass serves it better after all.

    Up to the first text a failure is an ordinary HTTP error. The request is one row; each of its calls is an attempt
    that is charged at its own model's price.
    """
    payer = accepted.principal.payer
    kept: KeptPlan | None = None
    plan_id = new_id()
    if planning.plan_id:
        plan_id, kept = await find(context.redis, payer, planning)
    limit_nanos = limit_of(
        max_cost_nanos=planning.config.max_cost_nanos,
        cap_nanos=planning.cap_nanos,
        margin=planning.config.cost_safety_margin,
    )
    is_asked = planning.mode is not Mode.AUTO
    if context.tracker.is_degraded:
        if is_asked:
            raise LimiterUnavailable(retry_after_s=1, reason="a plan needs the limiter")
        return False
    first = _planner_work(planning) if kept is None else _first_part(planning, kept.plan)
    models = tuple(first.rates)
    _request, size = sized(first.raw, models, accepted.catalogue)
    most_nanos = _most(first, accepted)
    intent = replace(
        accepted.intent(),
        planner=PLANNED,
        model=models[0],
        rates=first.rates[models[0]],
        hold_nanos=most_nanos,
        tokens_reserved=reserved_tokens(first.raw, size, accepted.principal.tokens_per_minute),
        prompt_tokens_guess=size.guess(models[0]),
        units_guess=None,
    )
    if kept is None and planning.mode is not Mode.DRY_RUN:  # which is asked for the price, whatever it is
        most_nanos = max(most_nanos, least_part_nanos(planning, accepted.catalogue))
    if most_nanos > limit_nanos:
        if is_asked:
            raise _too_dear(most_nanos, limit_nanos)
        return False
    try:
        call = await context.tracker.admit(
            accepted.principal, intent, dict(first.rates), size=size, most_tokens=accepted.most_tokens
        )
    except InsufficientQuota:
        if is_asked:
            raise
        return False
    incoming.admission = call.admission
    answer = PlannedAnswer(
        context, incoming, accepted, planning, Draws(context.tracker, call, Purse(limit_nanos)), plan_id
    )
    incoming.watch(answer.runner.abort)
    call.shutdown.on_set(answer.runner.abort)
    try:
        async with call:  # settled and recorded once, whatever happens
            if call.admission.is_degraded:
                raise LimiterUnavailable(retry_after_s=1, reason="a plan needs the limiter", admission=call.admission)
            await answer.serve(first, kept)
    finally:
        await answer.close()
    return True


def one_pass_of(planning: Planning) -> dict[str, Any]:
    """Output and price of one call instead."""
    facts = planning.facts
    return {
        "model": planning.one_pass_model,
        "tokens": min(planning.asked_tokens or facts.one_pass_tokens, facts.one_pass_tokens),
        "expected_usd": format_usd(facts.one_pass_nanos),
        "upper_usd": format_usd(planning.one_pass_most_nanos),
    }


async def quote_one_pass(incoming: Incoming, planning: Planning) -> None:
    """Answer a dry run of a request that is not planned. Nothing is called, counted or charged."""
    facts: dict[str, Any] = {"id": None, "chunks": [], "reason": planning.decision.reason}
    facts["one_pass"] = one_pass_of(planning)
    headers = [JSON, (b"x-cfx-planner", planning.decision.header.encode())]
    await incoming.respond(200, headers, _encode({"object": "cfx.plan", **facts}))


def _most(work: Work, accepted: AcceptedCall) -> int:
    return worst_nanos(sized(work.raw, tuple(work.rates), accepted.catalogue)[1], work.rates)


def _too_dear(most_nanos: int, limit_nanos: int) -> MaxCostExceeded:
    return MaxCostExceeded(
        f"The next call of this plan could cost up to ${format_usd(most_nanos)}, and ${format_usd(limit_nanos)} may be"
        " spent: the smaller of `x-max-cost` and the planner's own cap, less a margin of safety. Raise `x-max-cost`, or"
        " send less text.",
        param="x-max-cost",
    )


def _planner_work(planning: Planning) -> Work:
    messages = prompts.planner_messages(
        planning.config,
        system_text=planning.system_text,
        sections=planning.sections,
        wanted_tokens=planning.wanted_tokens,
    )
    return _planning_work(planning, messages)


def _planning_work(planning: Planning, messages: list[dict[str, str]]) -> Work:
    model = planning.models.planner
    return Work(
        kind="planner",
        raw=prompts.body_of(messages, max_tokens=prompts.PLANNER_TOKENS),
        rates={model: planning.models.rates[model]},
        timeout_s=planning.config.planner_timeout_s,
    )


def _first_part(planning: Planning, plan: Plan) -> Work:
    return _part_work(planning, plan, 1, "", planning.config.chunk_timeout_s)


def _part_work(planning: Planning, plan: Plan, number: int, carried: str, timeout_s: float) -> Work:
    chunk = plan.chunks[number - 1]
    messages = prompts.chunk_messages(planning.earlier, planning.sections, plan, number, carried)
    return Work(
        kind="chunk",
        title=chunk.title,
        raw=prompts.body_of(messages, max_tokens=chunk.tokens, parameters=planning.parameters),
        rates=rates_of(planning, chunk.quality),
        timeout_s=timeout_s,
    )


class _Unaffordable(Exception):
    """A call does not fit: `limit` says into what."""

    def __init__(self, limit: str, error: AppError | None = None) -> None:
        self.limit = limit
        self.error = error


class PlannedAnswer:
    """The answer of one planned request as it grows."""

    def __init__(
        self,
        context: GatewayContext,
        incoming: Incoming,
        accepted: AcceptedCall,
        planning: Planning,
        draws: Draws,
        plan_id: UUID,
    ) -> None:
        self._context = context
        self._accepted = accepted
        self._planning = planning
        self._draws = draws
        self._call = draws.call
        self._plan_id = plan_id
        self.runner = PartRunner(context, accepted, draws)
        self._ends_s = monotonic_s() + planning.config.total_timeout_s
        self._capture = CapturingResponse(incoming, accepted.raw) if accepted.principal.keeps_content else None
        self._response: Response = self._capture or incoming
        self._writer: Writer | None = None
        self._assembly = Assembly()
        self._plan: Plan | None = None
        self._model = draws.call.intent.model
        self._done: dict[int, DonePart] = {}
        self._missing: dict[int, str] = {}
        self._errors: list[AppError] = []
        self._summaries: dict[int, asyncio.Task[str]] = {}
        self._is_one_pass = False

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer.close()
        if self._capture is not None:
            organization_id = self._accepted.principal.organization_id
            self._context.content.publish(self._call.request_id, organization_id, self._capture.content)

    async def serve(self, first: Work, kept: KeptPlan | None) -> None:
        """Plan, and carry the plan out. Raises AppError as long as nothing has been sent."""
        planning = self._planning
        if self._accepted.request.is_stream and planning.mode is not Mode.DRY_RUN:
            self._writer = StreamWriter(
                self._response,
                self._call,
                self._headers,
                wants_usage=self._accepted.request.schema.wants_usage,
                ping_s=self._context.env.stream_ping_s,
            )
        else:
            self._writer = BodyWriter(self._response, self._call, self._headers)
        try:
            if kept is not None:
                self._plan, self._done = kept.plan, {n: part for n, part in kept.done.items() if not part.is_cut_off}
            else:
                self._plan = await self._make_plan(first)
            if self._plan is None and planning.mode is Mode.DRY_RUN:
                self._is_one_pass = True
                await self._respond({"id": None, "chunks": [], "reason": "no-plan"})
                return
            if self._plan is None:
                await self._one_pass()
                return
            planned_nanos = self._draws.purse.paid_nanos
            quote = quote_of(planning, self._plan, self._accepted.catalogue, planning_nanos=planned_nanos)
            if planning.mode is Mode.DRY_RUN:
                await self._respond_with(self._plan, quote)
                return
            if not await self._is_covered(quote):
                await self._one_pass()
                return
            await self._carry_out(self._plan)
        except AppError as error:
            if not await self._writer.break_off(error):
                raise

    # Planning

    async def _make_plan(self, first: Work) -> Plan | None:
        """Ask for a plan, once more where the answer is none. None: one honest pass serves the request."""
        planning = self._planning
        work = first
        for is_last in (False, True):
            try:
                written = await self._run(work)
            except _Unaffordable:
                return None
            if written.error is not None and not written.text:
                return None
            try:
                return self._read(written.text)
            except BadPlan as problem:
                if is_last:
                    return None
                asked = prompts.planner_messages(
                    planning.config,
                    system_text=planning.system_text,
                    sections=planning.sections,
                    wanted_tokens=planning.wanted_tokens,
                )
                work = _planning_work(planning, prompts.repair_messages(asked, written.text, str(problem)))
        return None

    def _read(self, text: str) -> Plan | None:
        """Read a plan; None for one that gives no more than one pass, and costs more."""
        planning = self._planning
        plan = read_plan(
            text,
            planning.config,
            sections=len(planning.sections),
            wanted_tokens=planning.asked_tokens,
            quality=planning.quality,
        )
        facts = planning.facts
        gives_more = plan.tokens > facts.one_pass_tokens
        if gives_more or planning.mode is not Mode.AUTO:
            return plan
        quote = quote_of(planning, plan, self._accepted.catalogue, planning_nanos=self._draws.purse.paid_nanos)
        return plan if quote.expected_nanos <= facts.one_pass_nanos else None

    async def _respond_with(self, plan: Plan, quote: Quote) -> None:
        """Answer a dry run: the plan and its price. The plan is kept, and can be carried out for an hour."""
        kept = KeptPlan(organization_id=self._organization_id, digest=digest_of(self._planning), plan=plan)
        is_kept = await keep(self._context.redis, self._accepted.principal.payer, self._plan_id, kept)
        parts = [
            {
                "part": n, "title": part.title, "model": part.model, "tokens": part.tokens,
                "depends_on": part.depends_on, "asks": [plan.asks[each - 1] for each in chunk.asks],
                "upper_usd": format_usd(part.most_nanos), "expected_usd": format_usd(part.expected_nanos),
            }
            for n, (part, chunk) in enumerate(zip(quote.parts, plan.chunks, strict=True), start=1)
        ]  # fmt: skip
        sums = {
            "upper_usd": format_usd(quote.most_nanos),
            "expected_usd": format_usd(quote.expected_nanos),
            "planning_usd": format_usd(quote.planning_nanos),
            "cap_usd": format_usd(self._draws.purse.limit_nanos),
            "expected_seconds": quote.expected_s,
        }
        await self._respond({"id": str(self._plan_id) if is_kept else None, "chunks": parts, **sums})

    async def _respond(self, facts: dict[str, Any]) -> None:
        await self._call.finish(status=200)
        body = _encode({"object": "cfx.plan", **facts, "one_pass": one_pass_of(self._planning)})
        await self._response.respond(200, [JSON, *self._headers()], body)

    async def _is_covered(self, quote: Quote) -> bool:
        """Extend the hold to what the plan may cost, as far as the cap allows. False: one pass serves the request.

        Raises InsufficientQuota (402), TokenRateExceeded (429) and LimiterAway (503) where the caller insisted.
        """
        done = sum([quote.parts[n - 1].most_nanos for n in self._done])
        most = min(quote.most_nanos - done, self._draws.purse.limit_nanos)
        tokens = self._call.intent.tokens_reserved + sum([part.tokens for part in quote.parts])
        try:
            await self._draws.extend(most, tokens)
        except (InsufficientQuota, RateLimitExceeded, LimiterUnavailable):
            if self._planning.mode is Mode.ON:
                raise
            return False
        return True

    # Calls

    async def _run(self, work: Work, on_text: OnText | None = None) -> Written:
        """Make a call, if cap, time and hold allow it. Raises _Unaffordable, ClientDisconnected, ShuttingDown."""
        left_s = self._ends_s - monotonic_s()
        if left_s <= 0:
            raise _Unaffordable(TIME)
        work = replace(work, timeout_s=min(work.timeout_s, left_s))
        most_nanos = self.runner.most_nanos(work)
        purse = self._draws.purse
        if not purse.reserve(most_nanos):
            raise _Unaffordable(COST, _too_dear(most_nanos, purse.limit_nanos))
        needed = purse.paid_nanos + purse.reserved_nanos
        if needed > self._call.intent.hold_nanos:
            try:
                await self._draws.extend(needed, self._call.intent.tokens_reserved)
            except (InsufficientQuota, RateLimitExceeded, LimiterUnavailable) as exc:
                purse.pay(most_nanos, 0)
                raise _Unaffordable(CREDIT, exc) from exc
        return await self.runner.run(work, most_nanos=most_nanos, on_text=on_text)

    async def _one_pass(self) -> None:
        """Serve the request as if there were no planner, within the same row, hold and cap."""
        assert self._writer is not None  # noqa: S101 - set first
        accepted = self._accepted
        self._is_one_pass = True
        self._model = accepted.first_model
        request = accepted.request
        fields: dict[str, Any] = {name: raw for name, raw in request.fields.items() if name != "stream_options"}
        limits = dict.fromkeys(request.limits or ("max_tokens",), accepted.max_tokens)
        work = Work(
            kind="one-pass",
            raw=_encode({**fields, **limits, "stream": True}),
            rates=accepted.rates,
            timeout_s=accepted.catalogue.total_timeout_s,
        )
        broken: AppError | None = None
        while True:
            try:
                written = await self._run(work, self._writer.text)
            except _Unaffordable as exc:
                raise broken or exc.error or MaxCostExceeded(param="x-max-cost") from exc
            if written.error is None:
                break
            # An answer that broke off is written by the next model, unless the caller has seen its beginning.
            left = _behind(work.rates, written.model)
            if not left or not isinstance(written.error, StreamBroken) or not self._writer.forget():
                raise written.error
            broken, work = written.error, replace(work, rates=left)
        self._model = written.model
        await self._writer.end(written.stop_reason or "stop", self._model, self._facts())

    # Parts

    async def _carry_out(self, plan: Plan) -> None:
        """Write the parts, those that depend on none beside each other, and send them in their order."""
        assert self._writer is not None  # noqa: S101 - set first
        pending = [n for n in range(1, len(plan.chunks) + 1) if n not in self._done]
        self._model = self._planning.models.of(plan.chunks[0].quality)[0]
        running: dict[asyncio.Task[None], int] = {}
        sent = await self._send_ready(0)
        live = sent + 1
        try:
            while pending or running:
                for n in [each for each in pending if self._may_begin(plan, each)]:
                    if len(running) >= self._parallel:
                        break
                    pending.remove(n)
                    task = asyncio.create_task(self._write_part(plan, n, is_live=n == live and self._assembly.is_empty))
                    running[task] = n
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del running[task]
                    task.result()
                sent = await self._send_ready(sent)
        except BaseException:
            self.runner.abort()
            await asyncio.gather(*running, return_exceptions=True)
            raise
        if self._assembly.is_empty:
            raise next(iter(self._errors), None) or MaxCostExceeded(param="x-max-cost")
        await self._finish(plan)

    @property
    def _parallel(self) -> int:
        """Parts that may be written at once: as many as the caller may have streams."""
        limits = [each.concurrent_streams for each in self._accepted.principal.limits if each.concurrent_streams >= 0]
        return max(1, min([self._planning.config.max_chunks, *limits]))

    def _may_begin(self, plan: Plan, n: int) -> bool:
        return all(each in self._done or each in self._missing for each in plan.chunks[n - 1].depends_on)

    async def _write_part(self, plan: Plan, n: int, *, is_live: bool) -> None:
        """Write one part, and go on once where it was cut off. What is missing is noted, never raised."""
        chunk, text, error = plan.chunks[n - 1], "", None
        try:
            carried = await self._carried(plan, n)
            work = _part_work(self._planning, plan, n, carried, self._planning.config.chunk_timeout_s)
            messages = prompts.chunk_messages(self._planning.earlier, self._planning.sections, plan, n, carried)
            written = await self._run(work, self._pass_on if is_live else None)
            text, error = written.text, written.error
            for _ in range(CONTINUATIONS):
                if not written.is_cut_off or not text.strip():
                    break
                again = prompts.continuation_messages(messages, text)
                raw = prompts.body_of(again, max_tokens=chunk.tokens, parameters=self._planning.parameters)
                written = await self._run(replace(work, raw=raw), self._pass_on if is_live else None)
                text += written.text
                error = written.error
            reason = LENGTH if written.is_cut_off else ""
        except _Unaffordable as exc:
            reason = exc.limit if not text.strip() else LENGTH
            error = exc.error
        if error is not None:
            self._errors.append(error)
        if text.strip():
            self._done[n] = DonePart(text=text, is_cut_off=bool(reason))
            if is_live:
                await self._text(self._assembly.first_end(text))
        if reason or not text.strip():
            self._missing[n] = reason or FAILED

    async def _pass_on(self, text: str) -> None:
        await self._text(self._assembly.pass_on(text))

    async def _text(self, text: str) -> None:
        assert self._writer is not None  # noqa: S101 - set first
        if self._response.is_gone:
            raise ClientDisconnected
        if text:
            await self._writer.text(text)

    async def _send_ready(self, sent: int) -> int:
        """Send what is done of the parts behind those that were sent. Returns the number of the last."""
        while (n := sent + 1) in self._done or n in self._missing:
            if n in self._done and not (n == 1 and not self._assembly.is_empty):
                await self._text(self._assembly.add(self._done[n].text))
            sent = n
        return sent

    async def _carried(self, plan: Plan, n: int) -> str:
        """Write what a part is told of those that it depends on: their text, or a summary of a long one."""
        told = []
        for each in plan.chunks[n - 1].depends_on:
            if each in self._done:
                text = self._done[each].text
                if len(text.encode()) > prompts.MAX_CARRIED_BYTES // len(plan.chunks[n - 1].depends_on):
                    text = await self._summary(each, text)
                told.append((plan.chunks[each - 1].title, text))
        return prompts.carried_of(told)

    async def _summary(self, n: int, text: str) -> str:
        """Summarize a part once, for all that depend on it. Its end stands in where that fails."""
        if n not in self._summaries:
            self._summaries[n] = asyncio.create_task(self._summarize(text))
        return await self._summaries[n]

    async def _summarize(self, text: str) -> str:
        work = Work(
            kind="summary",
            raw=prompts.body_of(prompts.summary_messages(text), max_tokens=prompts.SUMMARY_TOKENS),
            rates=rates_of(self._planning, "fast"),
            timeout_s=self._planning.config.chunk_timeout_s,
        )
        try:
            return (await self._run(work)).text or text
        except _Unaffordable:
            return text

    async def _finish(self, plan: Plan) -> None:
        assert self._writer is not None  # noqa: S101 - set first
        missing = [(plan.chunks[n - 1].title, why) for n, why in sorted(self._missing.items())]
        await self._text(note_of(missing, plan.language))
        if missing:
            kept = KeptPlan(
                organization_id=self._organization_id,
                digest=digest_of(self._planning),
                plan=plan,
                done=self._done,
                spent_nanos=self._draws.purse.paid_nanos,
            )
            await keep(self._context.redis, self._accepted.principal.payer, self._plan_id, kept)
        await self._writer.end("length" if missing else "stop", self._model, self._facts())

    # Response

    @property
    def _organization_id(self) -> UUID:
        return self._accepted.principal.organization_id

    def _headers(self) -> list[Header]:
        header = "one-pass; reason=no-plan" if self._is_one_pass else self._planning.decision.header
        if self._plan is not None and not self._is_one_pass:
            header += f"; chunks={len(self._plan.chunks)}; id={self._plan_id}"
        return response_headers(self._accepted.route, self._model, self._call.admission, header)

    def _facts(self) -> dict[str, Any]:
        """Facts for clients: how the answer came about, and what of it is missing."""
        plan = self._plan
        missing = [
            {"part": n, "title": plan.chunks[n - 1].title, "reason": why}
            for n, why in sorted(self._missing.items())
            if plan is not None
        ]
        return {
            "outcome": "one-pass" if self._is_one_pass else PLANNED,
            "plan_id": str(self._plan_id) if missing else None,
            "chunks": 0 if plan is None or self._is_one_pass else len(plan.chunks),
            "missing": missing,
            "limit": next(iter(self._missing.values()), None),
            "cost_usd": format_usd(self._draws.purse.paid_nanos),
            "cap_usd": format_usd(self._draws.purse.limit_nanos),
            "one_pass_usd": format_usd(self._planning.facts.one_pass_nanos),
        }


def _behind(rates: Mapping[str, FrozenRates], model: str) -> dict[str, FrozenRates]:
    """Return the models behind one of them; of a model that served in another's place, those behind the first."""
    names = list(rates)
    tried = names.index(model) + 1 if model in rates else 1
    return {name: rates[name] for name in names[tried:]}
