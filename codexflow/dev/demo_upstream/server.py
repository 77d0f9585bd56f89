"""Routes of the demo upstream, and the faults applied to its responses.

POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/rerank, /v1/moderations (all also
     without /v1), /v1/messages
POST /utils/token_counter: LiteLLM's count, an estimate, or the provider's with --counts-tokens=provider
POST /v1/messages/count_tokens (404 like LiteLLM 1.109; with --counts-tokens like 1.106)
POST /v1/responses/input_tokens, /v1/messages/count_tokens, of a provider
GET  /v1/models, /models, /v1/models/{id}, /model/info, /v1/model/info
GET  /health/liveliness, /health/liveness, /health/readiness
POST /demo/faults {"fault": "503 retry_after=5", "model": ..., "path": ..., "times": 3, "text": ...}; GET, DELETE
POST /demo/release: let go of every stream that the fault `held` stops
GET  /demo/ledger?since=0&call_id=&model=&wait=1&timeout_s=5; DELETE
"""

import asyncio
import base64
import functools
import hmac
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from codexflow.dev.demo_upstream import bridge, errors, generation, streams, surfaces
from codexflow.dev.demo_upstream.faults import BadFault, Drill, StandingFaults
from codexflow.dev.demo_upstream.generation import BadRequest, Generation, Missing
from codexflow.dev.demo_upstream.ledger import Entry, Ledger
from codexflow.dev.demo_upstream.models import EXAMPLES, MODELS, Model, unpriced
from codexflow.dev.demo_upstream.prompt_cache import NOT_CACHED, PromptCache
from codexflow.dev.demo_upstream.streams import Identity, Role, Script, Turn
from codexflow.dev.demo_upstream.surfaces import Surface
from codexflow.dev.demo_upstream.wire import Connection, Exchange, Reply, Request, Streamed, head_of
from codexflow.lib import clock
from codexflow.lib.ids import random_id

_SELECTED = (
    *("max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "stop", "stream_options"),
    *("tool_choice", "response_format", "user", "metadata", "dimensions", "encoding_format"),
    *("max_output_tokens", "previous_response_id", "reasoning", "stop_sequences", "store", "suffix", "thinking"),
)
_CREATED = 1677610602  # LiteLLM's value for every model
_NEEDS_DATABASE = ("/spend/", "/key/", "/user/", "/team/", "/global/")
_SSE = "text/event-stream; charset=utf-8"
_HTML = b"<!doctype html><html><body><h1>502 Bad Gateway</h1><p>[demo upstream]</p></body></html>"
_GZIP = 31  # zlib's window bits for a gzip container


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the command line."""

    api_key: str = ""  # empty: no key is required
    role: Role = "proxy"
    records_bodies: bool = False
    gap_ms: int = 0  # the usual pause between events
    # Whose counts a proxy serves: "estimate" or "provider". Empty: estimates, and no /v1/messages/count_tokens.
    counts_tokens: str = ""
    models: dict[str, Model] = field(default_factory=lambda: {**MODELS, **EXAMPLES})


class NotServed(Exception):
    """A response decided early: wrong key, unknown route, bad body."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(reply.status)


@dataclass(slots=True)
class DemoUpstream:
    """The whole service; `connection` makes the protocol of one TCP connection."""

    options: Options = field(default_factory=Options)
    ledger: Ledger = field(default_factory=Ledger)
    faults: StandingFaults = field(default_factory=StandingFaults)
    connections: set[Connection] = field(default_factory=set)
    cache: PromptCache = field(default_factory=PromptCache)
    released: asyncio.Event = field(default_factory=asyncio.Event)  # what the streams now held wait for

    def connection(self) -> Connection:
        return Connection(self.handle, self.ledger, self.connections)

    def handle(self, request: Request) -> Reply | Streamed:
        try:
            return self._route(request)
        except NotServed as early:
            return early.reply

    def _route(self, request: Request) -> Reply | Streamed:
        path = request.path
        surface = self._surface(path)
        if surface is not None or path in _WORDLESS:
            _only(request, "POST")
            self._check_key(request)
            return self._call(request, surface)
        count = _COUNTS[self.options.role].get(path)
        if count is not None:
            _only(request, "POST")
            self._check_key(request)
            return self._drilled(request, count(self, request))
        if path.startswith("/health/"):
            return self._drilled(request, self._health(path))
        if path == "/demo/redirected":
            return _json(200, {"demo_upstream": "somebody followed a redirect"})
        self._check_key(request)
        if path == "/demo/faults":
            return self._faults(request)
        if path == "/demo/release":
            _only(request, "POST")
            return self._release()
        if path == "/demo/ledger":
            return self._ledger(request)
        if path.startswith(_NEEDS_DATABASE):
            return Reply(500, errors.NO_DATABASE)
        _only(request, "GET")
        return self._drilled(request, self._about_models(path))

    def _check_key(self, request: Request) -> None:
        """Refuse keys as LiteLLM does without a database: a missing key with 401, a wrong key with 400."""
        if not self.options.api_key:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip() or request.headers.get(
            "x-api-key", ""
        )
        if not given:
            raise NotServed(Reply(401, errors.NO_KEY))
        if not hmac.compare_digest(given.encode(), self.options.api_key.encode()):
            raise NotServed(Reply(400, errors.WRONG_KEY))

    def _surface(self, path: str) -> Surface | None:
        found = _SURFACES.get(path)
        return found if found is surfaces.CHAT or self.options.role == "proxy" else None

    # Calls of a model.

    def _call(self, request: Request, surface: Surface | None) -> Reply | Streamed:
        """`surface` is None where the response has no words of a model."""
        body = _object(request.body)
        self._note(request, body)
        name = body.get("model")
        model = self.options.models.get(name) if isinstance(name, str) else None
        if model is None and isinstance(name, str) and self.options.role == "provider":
            model = unpriced(name)
        if model is None:
            status, error = errors.unknown_model(str(name), self.options.role)
            raise NotServed(_dressed(Reply(status, error, self._call_headers(request, None)), surface))
        try:
            chat = surface.to_chat(body) if surface else body
            generation.refuse_parameters(body, model)
            wordless = str(body.get("input") or body.get("query") or "")
            text = generation.last_user_text(chat.get("messages")) if surface else wordless
            asked = generation.drill_of(text, model.name).faults.values()
            drill = Drill.of([*asked, *self.faults.take(request.path, model.name, request.body)])
            request.entry.faults = list(drill.faults)
            call = _Call(request, body, model, drill, surface, chat, text)
            return self._words(call, surface) if surface else _WORDLESS[request.path](self, call)
        except Missing as exc:
            where = surface.name if surface else request.path
            error = errors.envelope(f"{where}: {exc}", "invalid_request_error", 400, exc.param)
            refusal = Reply(400, error, self._call_headers(request, None))
            raise NotServed(_dressed(refusal, surface)) from exc
        except BadFault as exc:
            refusal = self._refusal(request, model, f"[demo upstream] {exc}")
            raise NotServed(_dressed(refusal, surface)) from exc
        except BadRequest as exc:
            refusal = self._refusal(request, model, str(exc), exc.param)
            raise NotServed(_dressed(refusal, surface)) from exc

    def _note(self, request: Request, body: dict[str, Any]) -> None:
        entry = request.entry
        entry.body_keys = list(body)
        entry.model = body["model"] if isinstance(body.get("model"), str) else None
        entry.stream = body.get("stream") is True
        entry.selected = {name: body[name] for name in body if name in _SELECTED}
        if self.options.records_bodies:
            entry.body = request.body.decode(errors="replace")

    def _refusal(self, request: Request, model: Model, says: str, param: str | None = None) -> Reply:
        error = errors.provider_failed(400, model.name, self.options.role, says=says, param=param)
        return Reply(400, error, self._call_headers(request, model))

    def _words(self, call: "_Call", surface: Surface) -> Reply | Streamed:
        generated = generation.compose(call.chat, call.drill)
        failure = self._failure(call)
        cache = (
            NOT_CACHED if failure else self.cache.use(call.model.name, call.body, prompt_tokens=generated.prompt_tokens)
        )
        usage = generation.usage_of(generated, call.drill, cache)
        cost = call.model.cost(usage.prompt_tokens, usage.completion_tokens)
        entry = call.request.entry
        entry.prompt_tokens = generated.prompt_tokens
        if not call.drill.get("no_usage"):
            entry.reported = (usage.prompt_tokens, usage.completion_tokens)
        turn = Turn(
            asked=call.body,
            generated=generated,
            # An id of the provider's kind: another one than the call id, which names the proxy's call.
            identity=Identity(
                f"chatcmpl-demo{random_id().hex[:16]}", int(clock.now_s()), _named_model(call), self.options.role
            ),
            usage=None if call.drill.get("no_usage") else usage,
            cost=cost if self.options.role == "proxy" else None,
            drill=call.drill,
        )
        if failure:
            return self._paced(call, failure)
        if entry.stream:
            failed = functools.partial(surface.failed, turn)
            return self._stream(call, streams.scripted(surface.events(turn), call.drill, surface.dress, failed))
        entry.completion_tokens = generated.completion_tokens
        entry.characters = generated.choices * len(generated.text)
        body = msgspec.json.encode(surface.whole(turn))
        return self._paced(call, Reply(200, body, self._call_headers(call.request, call.model, cost)))

    def _count_chat(self, request: Request) -> Reply:
        """LiteLLM's own form of a count."""
        body = _object(request.body)
        self._note(request, body)
        if not isinstance(body.get("messages"), list):
            return _json(400, {"detail": "prompt or messages or contents must be provided"})
        asked = request.query.get("call_endpoint") == "true"
        counted = {
            "total_tokens": generation.counted_tokens(body),
            "request_model": body.get("model"),
            "model_used": body.get("model"),
            "tokenizer_type": "openai_tokenizer",
            "count_source": self._count_source() if asked else "local_estimate",
        }
        return _json(200, counted)

    def _count_messages(self, request: Request) -> Reply:
        is_proxy = self.options.role == "proxy"
        if is_proxy and not self.options.counts_tokens:
            return Reply(404, errors.anthropic("404: Not Found", 404))
        body = _object(request.body)
        self._note(request, body)
        try:
            chat = bridge.from_messages({"max_tokens": 1, **body})
        except BadRequest as exc:
            return Reply(400, errors.anthropic(str(exc), 400))
        counted: dict[str, Any] = {"input_tokens": generation.counted_tokens(chat)}
        return _json(200, {**counted, "litellm_count_source": self._count_source()} if is_proxy else counted)

    def _count_response(self, request: Request) -> Reply:
        body = _object(request.body)
        self._note(request, body)
        try:
            chat = bridge.from_responses(body)
        except BadRequest as exc:
            return Reply(400, errors.envelope(str(exc), "invalid_request_error", 400, exc.param))
        return _json(200, {"object": "response.input_tokens", "input_tokens": generation.counted_tokens(chat)})

    def _count_source(self) -> str:
        return "provider" if self.options.counts_tokens == "provider" else "local_estimate"

    def _embeddings(self, call: "_Call") -> Reply | Streamed:
        texts = generation.embedding_inputs(call.body)
        dimensions = call.body.get("dimensions")
        if dimensions is not None and (not isinstance(dimensions, int) or not 1 <= dimensions <= 4096):
            raise BadRequest(f"Invalid value for 'dimensions': {dimensions!r}", "dimensions")
        tokens = sum(max(1, len(text) // 4) for text in texts)
        if failure := self._failure(call):
            return self._paced(call, failure)
        vectors = [generation.vector(text, call.model, dimensions) for text in texts]
        as_text = call.body.get("encoding_format") == "base64"
        listed = [base64.b64encode(v.tobytes()).decode() if as_text else v.tolist() for v in vectors]
        usage = generation.usage_of(Generation((), "stop", tokens), call.drill)
        body: dict[str, Any] = {
            "model": call.model.name,
            "data": [{"embedding": v, "index": i, "object": "embedding"} for i, v in enumerate(listed)],
            "object": "list",
        }
        if not call.drill.get("no_usage"):
            body["usage"] = {
                "completion_tokens": usage.completion_tokens,
                "prompt_tokens": usage.prompt_tokens,
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
                "completion_tokens_details": None,
                "prompt_tokens_details": None,
            }
        cost = call.model.cost(usage.prompt_tokens, usage.completion_tokens)
        call.request.entry.prompt_tokens = tokens
        return self._paced(
            call, Reply(200, msgspec.json.encode(body), self._call_headers(call.request, call.model, cost))
        )

    def _rerank(self, call: "_Call") -> Reply | Streamed:
        """Rank by the length of the documents, and bill as Cohere does, or by tokens."""
        query, documents = generation.documents_of(call.body)
        tokens = sum(max(1, (len(query) + len(text)) // 4) for text in documents)
        if failure := self._failure(call):
            return self._paced(call, failure)
        most = call.body.get("top_n") or call.body.get("top_k")  # Voyage's name
        order = sorted(range(len(documents)), key=lambda n: -len(documents[n]))[:most]
        usage = generation.usage_of(Generation((), "stop", tokens), call.drill)
        units = -(-len(documents) // 100) if call.model.cost_per_search_unit else 0
        body: dict[str, Any] = {
            "id": str(random_id()),
            "results": [{"index": n, "relevance_score": 1 / (1 + at)} for at, n in enumerate(order)],
        }
        if call.body.get("return_documents"):
            for result in body["results"]:
                given = call.body["documents"][result["index"]]
                result["document"] = given if isinstance(given, dict) else {"text": given}
        if not call.drill.get("no_usage"):
            body["meta"] = {
                "billed_units": {"search_units": units} if units else {"total_tokens": usage.prompt_tokens},
                "tokens": {"input_tokens": usage.prompt_tokens, "output_tokens": 0},
            }
        if self.options.role == "provider" and not units:  # as Voyage writes it
            body = {"object": "list", "data": body["results"], "usage": {"total_tokens": usage.prompt_tokens}}
        cost = call.model.cost(usage.prompt_tokens, 0) + units * call.model.cost_per_search_unit
        call.request.entry.prompt_tokens = tokens
        return self._paced(
            call, Reply(200, msgspec.json.encode(body), self._call_headers(call.request, call.model, cost))
        )

    def _moderations(self, call: "_Call") -> Reply | Streamed:
        """Flag what has the word "violence"; as OpenAI's, the response tells no usage."""
        texts = generation.moderated_texts(call.body)
        if failure := self._failure(call):
            return self._paced(call, failure)
        flags = ["violence" in text for text in texts]
        results = [
            {"flagged": flag, "categories": {"violence": flag}, "category_scores": {"violence": float(flag)}}
            for flag in flags
        ]
        body = {"id": f"modr-demo{random_id().hex[:16]}", "model": call.model.name, "results": results}
        return self._paced(call, Reply(200, msgspec.json.encode(body), self._call_headers(call.request, call.model)))

    def _call_headers(self, request: Request, model: Model | None, cost: float | None = None) -> list[tuple[str, str]]:
        """LiteLLM's headers of a response; a provider sends but its own."""
        if self.options.role == "provider":
            return [("x-request-id", f"req_demo_{request.entry.seq}")]
        call_id = request.entry.call_id or str(random_id())
        headers = [("x-litellm-call-id", call_id), ("x-litellm-version", "demo")]
        if model is not None:
            headers += [
                ("x-litellm-model-id", model.id),
                ("x-litellm-model-name", f"demo/{model.name}"),
                ("x-litellm-model-api-base", "http://demo-provider.internal/v1"),
                ("x-litellm-model-group", model.name),
                ("x-litellm-attempted-retries", "0"),
                ("x-litellm-attempted-fallbacks", "0"),
                ("llm_provider-x-request-id", f"req_demo_{request.entry.seq}"),
            ]
        if cost is not None:
            headers += [("x-litellm-response-cost", str(cost)), ("x-litellm-key-spend", str(cost))]
        return headers

    # Drills.

    def _failure(self, call: "_Call") -> Reply | None:
        """Return the response that replaces the real one, if a fault requests it."""
        headers = self._call_headers(call.request, call.model)
        if status := call.drill.get("status"):
            code = status.number("code")
            if (seconds := status.numbers.get("retry_after")) is not None:
                # LiteLLM passes it on under this name only; a provider sends the real one.
                name = "retry-after" if self.options.role == "provider" else "llm_provider-retry-after"
                headers.append((name, str(seconds)))
            says = errors.PROVIDERS_WORDS.get(status.says, status.says).replace("{caller}", call.said)
            failed = Reply(code, errors.provider_failed(code, call.model.name, self.options.role, says=says), headers)
            return _dressed(failed, call.surface)
        if html := call.drill.get("html"):
            return Reply(html.number("status"), _HTML, headers, content_type="text/html; charset=utf-8")
        if redirect := call.drill.get("redirect"):
            return Reply(redirect.number("status"), b"", [*headers, ("location", redirect.to)])
        if call.drill.get("error_event") and not call.request.entry.stream:
            failed = Reply(500, errors.provider_failed(500, call.model.name, self.options.role), headers)
            return _dressed(failed, call.surface)
        return None

    def _drilled(self, request: Request, reply: Reply) -> Reply | Streamed:
        """A page that is no model's call, changed by the faults set for its path."""
        drill = Drill.of(self.faults.take(request.path, None, request.body))
        if not drill:
            return reply
        request.entry.faults = list(drill.faults)
        call = _Call(request, {}, unpriced(""), drill)
        return self._paced(call, self._failure(call) or reply)

    def _paced(self, call: "_Call", reply: Reply) -> Reply | Streamed:
        """`reply` as it is, or as its faults change it below and around HTTP."""
        if not call.drill:
            return reply
        entry = call.request.entry
        entry.status = reply.status
        if call.drill.first_of("cut", "eof", "hang"):
            entry.completion_tokens = 0
        return functools.partial(_send_reply, reply, call.drill)

    def _stream(self, call: "_Call", script: Script) -> Streamed:
        headers = [
            ("content-type", _SSE), ("cache-control", "no-cache"), ("x-accel-buffering", "no"),
            *self._call_headers(call.request, call.model),
        ]  # fmt: skip
        call.request.entry.status = 200
        gap_ms = call.drill.gap_ms(self.options.gap_ms)
        return functools.partial(_send_stream, script, headers, call.drill, gap_ms, self.released)

    # Everything else.

    def _health(self, path: str) -> Reply:
        if path in ("/health/liveliness", "/health/liveness"):
            return Reply(200, b'"I\'m alive!"')
        if path == "/health/readiness":
            return _json(200, {"status": "healthy", "db": "Not connected"})
        return _json(404, {"detail": "Not Found"})

    def _about_models(self, path: str) -> Reply:
        if path in ("/v1/models", "/models"):
            return _json(200, {"data": [_listed(model) for model in self.options.models.values()], "object": "list"})
        if path in ("/model/info", "/v1/model/info"):
            return _json(200, {"data": [_model_info(model) for model in self.options.models.values()]})
        name = path.removeprefix("/v1/models/")
        if name in self.options.models:
            return _json(200, _listed(self.options.models[name]))
        return _json(404, {"detail": "Not Found"})

    def _faults(self, request: Request) -> Reply:
        _only(request, "GET", "POST", "DELETE")
        if request.method == "DELETE":
            self.faults.clear()
        if request.method == "POST":
            body = _object(request.body)
            times = body.get("times")
            if times is not None and (not isinstance(times, int) or times < 1):
                raise NotServed(_json(400, {"detail": f"times={times!r} is not a positive whole number"}))
            try:
                self.faults.add(
                    str(body.get("fault") or ""),
                    model=body.get("model"),
                    path=body.get("path"),
                    times=times,
                    text=str(body.get("text") or ""),
                )
            except BadFault as exc:
                raise NotServed(_json(400, {"detail": str(exc)})) from exc
        standing = [
            {"fault": item.words, "model": item.model, "path": item.path, "times": item.times, "text": item.text}
            for item in self.faults.items
        ]
        return _json(200, {"faults": standing})

    def _release(self) -> Reply:
        self.released.set()
        self.released = asyncio.Event()  # for the streams held from now on
        return _json(200, {})

    def _ledger(self, request: Request) -> Reply | Streamed:
        _only(request, "GET", "DELETE")
        if request.method == "DELETE":
            self.ledger.clear()
            return _json(200, {"entries": []})
        query = request.query
        since, count = int(query.get("since", 0)), int(query.get("wait", 0))
        call_id, model = query.get("call_id"), query.get("model")
        if not count:
            return self._ledger_page(self.ledger.select(since=since, call_id=call_id, model=model))
        timeout_s = float(query.get("timeout_s", 5))

        async def wait(exchange: Exchange) -> None:
            found = await self.ledger.wait(count=count, timeout_s=timeout_s, since=since, call_id=call_id, model=model)
            reply = self._ledger_page(found)
            await exchange.send(reply.head() + reply.body)

        return wait

    def _ledger_page(self, found: list[Entry]) -> Reply:
        page = {
            "entries": found,
            "last_seq": self.ledger.last_seq,
            "open": self.ledger.open,
            "connections": len(self.connections),
        }
        return Reply(200, msgspec.json.encode(page))


def _named_model(call: "_Call") -> str:
    """The model that the response names."""
    substitute = call.drill.get("substitute")
    return substitute.says if substitute else call.model.name


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a model, parsed."""

    request: Request
    body: dict[str, Any]
    model: Model
    drill: Drill
    surface: Surface | None = None  # None: embeddings and the like, or a page that is no model's call
    chat: dict[str, Any] = field(default_factory=dict)  # the body as a chat body
    said: str = ""  # last message of the caller


_SURFACES = {
    "/v1/chat/completions": surfaces.CHAT,
    "/chat/completions": surfaces.CHAT,
    "/v1/completions": surfaces.COMPLETIONS,
    "/completions": surfaces.COMPLETIONS,
    "/v1/responses": surfaces.RESPONSES,
    "/responses": surfaces.RESPONSES,
    "/v1/messages": surfaces.MESSAGES,
}
_WORDLESS = {
    f"{prefix}/{name}": respond
    for name, respond in (
        ("embeddings", DemoUpstream._embeddings),
        ("rerank", DemoUpstream._rerank),
        ("moderations", DemoUpstream._moderations),
    )
    for prefix in ("/v1", "")
} | {"/v2/rerank": DemoUpstream._rerank}  # where LiteLLM asks Cohere
_COUNTS: dict[Role, dict[str, Callable[[DemoUpstream, Request], Reply]]] = {
    "proxy": {
        "/utils/token_counter": DemoUpstream._count_chat,
        "/v1/messages/count_tokens": DemoUpstream._count_messages,
    },
    "provider": {
        "/v1/responses/input_tokens": DemoUpstream._count_response,
        "/v1/messages/count_tokens": DemoUpstream._count_messages,
    },
}


def _dressed(failure: Reply, surface: Surface | None) -> Reply:
    """A failure in the envelope of its surface."""
    if surface is not None and surface.is_anthropics:
        failure.body = errors.as_anthropics(failure.body, failure.status)
    return failure


async def _send_stream(
    script: Script,
    headers: list[tuple[str, str]],
    drill: Drill,
    gap_ms: int,
    released: asyncio.Event,
    exchange: Exchange,
) -> None:
    """The events one by one, each its own chunk and its own write, then the ending."""
    entry = exchange.entry
    struck = drill.first_of("cut", "eof", "hang")
    if slow := drill.get("slow"):
        await asyncio.sleep(slow.number("first_ms") / 1000)
    if drill.get("gzip_bomb") or drill.get("wrong_length") or drill.get("slowloris"):
        body = b"".join(event.raw for event in script.events) + script.closing
        await _send_bent(Reply(200, body, headers[1:], content_type=_SSE), drill, exchange)
        return
    if struck is None or struck.after is not None:
        await exchange.send(head_of(200, [("transfer-encoding", "chunked"), *headers]))
    for number, event in enumerate(script.events):
        if number:
            await asyncio.sleep(gap_ms / 1000)
        entry.chunks += 1
        entry.completion_tokens += event.tokens
        entry.characters += event.characters
        await exchange.chunk(event.raw)
    if drill.get("held"):
        await released.wait()
    if script.ending == "reset":
        await exchange.reset()
    elif script.ending == "close":
        await exchange.close()
    elif script.ending == "hang":
        await exchange.hang()
    elif script.ending == "unclosed":
        exchange.finish("broken")
        await exchange.end_chunks()
    else:
        exchange.finish("finished")
        await exchange.chunk(script.closing)
        await exchange.end_chunks()


async def _send_reply(reply: Reply, drill: Drill, exchange: Exchange) -> None:
    """A response without streaming, with its faults."""
    if slow := drill.get("slow"):
        await asyncio.sleep(slow.number("first_ms") / 1000)
    struck = drill.first_of("cut", "eof", "hang")
    if struck is not None:
        if struck.after is not None:
            await exchange.send(reply.head() + reply.body[: len(reply.body) // 2])
        end = {"cut": exchange.reset, "eof": exchange.close, "hang": exchange.hang}[struck.kind]
        await end()
        return
    if (drill.get("truncated") or drill.get("malformed")) and reply.status == 200:
        reply = Reply(200, reply.body[: len(reply.body) // 2], reply.headers, reply.content_type)
    await _send_bent(reply, drill, exchange)


async def _send_bent(reply: Reply, drill: Drill, exchange: Exchange) -> None:
    """Apply framing faults: compression, a wrong length, slow bytes, or none."""
    if bomb := drill.get("gzip_bomb"):
        packed = await asyncio.to_thread(_bomb, reply.content_type, bomb.number("bytes"))
        reply = Reply(reply.status, packed, [*reply.headers, ("content-encoding", "gzip")], reply.content_type)
    if wrong := drill.get("wrong_length"):
        await exchange.send(reply.head(max(0, len(reply.body) + wrong.number("by"))) + reply.body)
        await exchange.close()
        return
    dribble = drill.get("slowloris")
    if dribble is None:
        await exchange.send(reply.head() + reply.body)
        return
    raw, step = reply.head() + reply.body, max(1, dribble.number("bytes"))
    for start in range(0, len(raw), step):
        await exchange.send(raw[start : start + step])
        await asyncio.sleep(dribble.number("gap_ms") / 1000)


@functools.lru_cache(maxsize=4)
def _bomb(content_type: str, size: int) -> bytes:
    """Build a plausible response whose text decompresses to `size` bytes."""
    start, end = (
        b'{"id":"chatcmpl-bomb","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"',
        b'"}}]}',
    )
    if content_type == _SSE:
        start, end = (
            b'data: {"id":"chatcmpl-bomb","choices":[{"index":0,"delta":{"content":"',
            b'"}}]}\n\ndata: [DONE]\n\n',
        )
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    parts = [packer.compress(start)]
    parts += [packer.compress(b"x" * min(1_048_576, size - done)) for done in range(0, size, 1_048_576)]
    parts += [packer.compress(end), packer.flush()]
    return b"".join(parts)


def _listed(model: Model) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": _CREATED,
        "owned_by": "openai",
        "mode": model.mode,
    }
    shown["max_input_tokens"] = model.max_input_tokens
    if model.max_output_tokens is not None:
        shown["max_output_tokens"] = model.max_output_tokens
    return shown


def _model_info(model: Model) -> dict[str, Any]:
    prices = {
        "input_cost_per_token": model.input_cost_per_token,
        "output_cost_per_token": model.output_cost_per_token,
    }
    return {
        "model_name": model.name,
        "litellm_params": {**prices, "model": f"demo/{model.name}"},
        "model_info": {
            **prices,
            "id": model.id,
            "db_model": False,
            "mode": model.mode,
            "key": f"demo/{model.name}",
            "max_tokens": model.max_output_tokens,
            "max_input_tokens": model.max_input_tokens,
            "max_output_tokens": model.max_output_tokens,
        },
    }


def _json(status: int, value: object) -> Reply:
    return Reply(status, msgspec.json.encode(value))


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise NotServed(_json(405, {"detail": "Method Not Allowed"}))


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError as exc:
        raise NotServed(
            Reply(400, errors.envelope(f"Invalid JSON payload: {exc}", "invalid_request_error", 400))
        ) from exc
    if not isinstance(value, dict):
        raise NotServed(Reply(400, errors.envelope("The body must be a JSON object", "invalid_request_error", 400)))
    return value
