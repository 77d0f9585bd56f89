"""Table of the metered surfaces: path, request schema, response format."""

from collections.abc import Mapping
from dataclasses import dataclass

from codexflow.catalogue.lineup import Lineup
from codexflow.catalogue.surfaces import OWN_MODELS, PATHS
from codexflow.lib.asgi import Header
from routing import stages
from routing.stages import Route
from routing.surfaces import compaction, requests, responses
from routing.surfaces.body import ParsedRequest
from routing.surfaces.responses import ResponseFormat

# Headers of the caller that an Anthropic provider behind the upstream needs.
_ANTHROPIC_HEADERS = (b"anthropic-version", b"anthropic-beta")


@dataclass(frozen=True, slots=True)
class Surface:
    """One API shape. `path` is the upstream's, and ours besides its aliases."""

    name: str
    path: str
    schema: type[requests.RequestSchema]
    response_format: ResponseFormat
    passed_headers: tuple[bytes, ...] = ()

    def unfolded(self, body: bytes) -> "tuple[Surface, bytes]":
        """Return the surface that serves a body, and the body with compacted conversations written out.

        Raises CompactionUnreadable.
        """
        if self is COMPACT:
            return self, compaction.written_out(body, at_endpoint=True)[0]
        if self is not RESPONSES or compaction.MARK not in body:
            return self, body
        body, is_asked = compaction.written_out(body, at_endpoint=False)
        return (COMPACTION if is_asked else self), body

    def route(self, request: ParsedRequest, stage_header: str | None, lineup: Lineup) -> Route:
        """Choose the stage. Raises InvalidStage, ModelNotAllowed, ModelNotPriced and ModelRetired."""
        if self.name in OWN_MODELS:
            return stages.route_own(self.name, stage_header=stage_header, model=request.model, lineup=lineup)
        return stages.route(stage_header=stage_header, model=request.model, prompt=request.prompt, lineup=lineup)

    def headers(self, of_caller: Mapping[bytes, bytes]) -> tuple[Header, ...]:
        """Return the caller's headers that are passed upstream."""
        if not self.passed_headers:
            return ()
        return tuple((name, of_caller[name]) for name in self.passed_headers if name in of_caller)


_COMPLETIONS = responses.Completions()
_MESSAGES = responses.Messages()

CHAT = Surface("chat", PATHS["chat"], requests.Chat, _COMPLETIONS)
COMPLETIONS = Surface("completions", PATHS["completions"], requests.Completions, responses.TextCompletions())
EMBEDDINGS = Surface("embeddings", PATHS["embeddings"], requests.Embeddings, responses.Embeddings())
RESPONSES = Surface("responses", PATHS["responses"], requests.Responses, responses.Responses())
MESSAGES = Surface("messages", PATHS["messages"], requests.Messages, _MESSAGES, _ANTHROPIC_HEADERS)

RERANK = Surface("rerank", PATHS["rerank"], requests.Rerank, responses.Rerank())
MODERATIONS = Surface("moderations", PATHS["moderations"], requests.Moderations, responses.Moderations())
# Responses that are asked for the summary of their conversation: by an item of the input, or at an endpoint.
COMPACTION = Surface(RESPONSES.name, RESPONSES.path, requests.Compaction, responses.Compactions())
COMPACT = Surface(RESPONSES.name, RESPONSES.path, requests.Compaction, responses.Compactions(is_history=True))
COMPACT_PATH = f"{RESPONSES.path}/compact"

SURFACES = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES, RERANK, MODERATIONS)
# Under both names: some clients add /v1 to the base URL themselves, some do not. Cohere's newer client has a version
# of its own in the path; requests and responses are the same.
BY_PATH = {
    **{surface.path: surface for surface in SURFACES},
    "/chat/completions": CHAT,
    "/v2/rerank": RERANK,
    COMPACT_PATH: COMPACT,
}
# The same key scope as the messages it measures.
COUNT_TOKENS = Surface(
    MESSAGES.name, f"{MESSAGES.path}/count_tokens", requests.CountTokens, _MESSAGES, _ANTHROPIC_HEADERS
)


def is_anthropic_client(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the caller speaks Anthropic's API: all of its clients send this header, and only they do."""
    return b"anthropic-version" in headers


def response_format_of(path: str, headers: Mapping[bytes, bytes]) -> ResponseFormat:
    """Return the format of errors at `path`: Anthropic's clients read only their own envelope."""
    is_messages = path.startswith(MESSAGES.path) or (path.startswith("/v1/models") and is_anthropic_client(headers))
    return _MESSAGES if is_messages else _COMPLETIONS
