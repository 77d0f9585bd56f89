"""Request schemas of the metered surfaces: the few fields that the gateway reads. Pure.

All other fields pass through, so types are strict only where the gateway decides by them.
"""

from collections.abc import Mapping
from typing import ClassVar

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from billing.limiter.holds import CallSize, search_units
from routing.errors import InvalidRequestBody, ThreadsUnsupported
from routing.inference.infer import Prompt
from routing.surfaces.attachments import NOTHING, Attachment, Content, Message, Part, attachments_of, collect, text_of

MAX_OUTPUT_TOKENS = 10_000_000
MAX_CHOICES = 128

Fields = Mapping[str, Raw]


class RequestSchema(Struct, kw_only=True):
    """Fields common to all surfaces; subclasses map their own names to them."""

    # Fields that bound the output, the default one first; none: the surface produces no tokens.
    limit_fields: ClassVar[tuple[str, ...]] = ("max_tokens",)
    # Usage is requested with `stream_options`; elsewhere streams always carry it.
    asks_for_usage: ClassVar[bool] = False
    takes_temperature: ClassVar[bool] = True
    # The provider stores responses unless the request opts out.
    is_stored_by_default: ClassVar[bool] = False
    # A model responds, and may use the tools that the provider carries out.
    uses_tools: ClassVar[bool] = True

    # The conversation has objects that a provider may write anew, such as the input of a tool.
    has_objects: ClassVar[bool] = False

    model: str | None = None
    stream: bool | None = None

    @property
    def wants_usage(self) -> bool:
        """True if the caller's stream shall carry usage."""
        return True

    @property
    def parts(self) -> int:
        """Number of messages, items or texts: each costs a few tokens of envelope."""
        return 1

    @property
    def choices(self) -> int:
        """Number of choices of full length that may be produced."""
        return 1

    @property
    def windows(self) -> int:
        """Number of times that the request may fill a model's context: once for each text that is read by itself."""
        return 1

    def limits(self) -> dict[str, int]:
        """Return the bounds of the output that were given, by field."""
        return {name: value for name in self.limit_fields if (value := getattr(self, name)) is not None}

    def attachments(self) -> list[Attachment]:
        """Return images and files inside the body: their bytes are no text."""
        return []

    def declares_tools(self) -> bool:
        """Return whether the conversation itself has items that declare tools, besides those of the request."""
        return False

    def sized(self, size: CallSize) -> CallSize:
        """Return the size of the call with what only the surface knows of it."""
        return size

    def plain_texts(self) -> list[str]:
        """Return texts that reach a model as they are, never inside of JSON that a provider writes."""
        return []

    def prompt(self, fields: Fields) -> Prompt:
        """Return the texts that stage inference reads; none on surfaces without messages."""
        return Prompt(last_user_text="")

    def check(self) -> None:
        """Raise InvalidRequestBody for rules that types cannot express; bounds of the output are checked elsewhere."""


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Function(Struct):
    name: str | None = None


class _Tool(Struct):
    """Named at the top, or inside `function` on chat; OpenAI's own tools have a type only."""

    name: str | None = None
    type: str | None = None
    function: _Function | None = None

    def tool_name(self) -> str:
        return (self.function.name if self.function else None) or self.name or self.type or ""


_tools = msgspec.json.Decoder(list[_Tool])


def tool_names(fields: Fields) -> tuple[str, ...]:
    """Return the names of the tools; none when their form is unknown, which the model may judge."""
    try:
        return tuple(tool.tool_name() for tool in _tools.decode(fields["tools"])) if "tools" in fields else ()
    except (msgspec.MsgspecError, RecursionError):
        return ()


def _conversation(messages: list[Message], fields: Fields, *, instructions: str = "") -> Prompt:
    """Return the user's last message and the system's texts. Tool results in the user's role do not count."""
    user_texts = (text for each in reversed(messages) if each.role == "user" and (text := text_of(each.content)))
    system = [text_of(each.content) for each in messages if each.role in ("system", "developer")]
    return Prompt(
        last_user_text=next(user_texts, ""),
        system_text="\n".join([instructions, *system] if instructions else system),
        tool_names=tool_names(fields),
    )


def _check_count(name: str, value: int | None) -> None:
    if value is not None and not 1 <= value <= MAX_CHOICES:
        raise InvalidRequestBody(f"`{name}` must be between 1 and {MAX_CHOICES}.", param=name)


class _UsageOnRequest(RequestSchema, kw_only=True):
    """OpenAI's older two: streams carry usage only on request, and there may be several choices."""

    asks_for_usage: ClassVar[bool] = True

    stream_options: _StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None

    @property
    @override
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class Chat(_UsageOnRequest, kw_only=True):
    """POST /v1/chat/completions."""

    limit_fields: ClassVar[tuple[str, ...]] = ("max_tokens", "max_completion_tokens")

    messages: list[Message]
    max_completion_tokens: int | None = None

    @property
    @override
    def parts(self) -> int:
        return len(self.messages)

    @property
    @override
    def choices(self) -> int:
        return self.n or 1

    @override
    def attachments(self) -> list[Attachment]:
        return attachments_of(self.messages)

    @override
    def plain_texts(self) -> list[str]:
        return [text_of(each.content) for each in self.messages if each.role != "tool"]

    @override
    def prompt(self, fields: Fields) -> Prompt:
        return _conversation(self.messages, fields)

    @override
    def check(self) -> None:
        if not self.messages:
            raise InvalidRequestBody("`messages` must have at least one message.", param="messages")
        _check_count("n", self.n)


# A text, several texts, the tokens of one, or of several.
_Texts = str | list[str | int | list[int]]


def _count_of(texts: _Texts) -> int:
    """Return the number of texts; the tokens of one text count as one."""
    return 1 if isinstance(texts, str) or (texts and isinstance(texts[0], int)) else len(texts)


class Completions(_UsageOnRequest, kw_only=True):
    """POST /v1/completions: continue a text."""

    prompt_: _Texts = msgspec.field(name="prompt")
    best_of: int | None = None

    @property
    @override
    def windows(self) -> int:
        return self.parts

    @property
    @override
    def parts(self) -> int:
        return _count_of(self.prompt_)

    @property
    @override
    def choices(self) -> int:
        """Every text gets `best_of` completions, of which `n` are returned."""
        return self.parts * max(self.n or 1, self.best_of or 1)

    @override
    def prompt(self, fields: Fields) -> Prompt:
        prompts = [self.prompt_] if isinstance(self.prompt_, str) else self.prompt_
        return Prompt(last_user_text=next((each for each in reversed(prompts) if isinstance(each, str)), ""))

    @override
    def check(self) -> None:
        if not self.prompt_:
            raise InvalidRequestBody("`prompt` must not be empty.", param="prompt")
        if self.parts > MAX_CHOICES:
            raise InvalidRequestBody(f"`prompt` may have at most {MAX_CHOICES} texts.", param="prompt")
        _check_count("n", self.n)
        _check_count("best_of", self.best_of)


class Embeddings(RequestSchema, kw_only=True):
    """POST /v1/embeddings: no output tokens."""

    limit_fields: ClassVar[tuple[str, ...]] = ()
    takes_temperature: ClassVar[bool] = False

    input: _Texts

    @property
    @override
    def windows(self) -> int:
        return self.parts

    @property
    @override
    def parts(self) -> int:
        return _count_of(self.input)

    @override
    def check(self) -> None:
        if not self.input:
            raise InvalidRequestBody("`input` must not be empty.", param="input")
        if self.stream:
            raise InvalidRequestBody("Embeddings do not stream.", param="stream")


class _OfACall(RequestSchema, kw_only=True):
    """A surface without output tokens and tools, whose calls may be sold by the piece."""

    limit_fields: ClassVar[tuple[str, ...]] = ()
    takes_temperature: ClassVar[bool] = False
    uses_tools: ClassVar[bool] = False

    @override
    def check(self) -> None:
        if self.stream:
            raise InvalidRequestBody("This endpoint does not stream.", param="stream")


class Rerank(_OfACall, kw_only=True):
    """POST /v1/rerank, as Cohere's clients write it. LiteLLM fails on other types than these."""

    query: str
    documents: list[str | dict[str, Raw]]
    top_n: int | None = None
    rank_fields: list[str] | None = None
    return_documents: bool | None = None
    max_chunks_per_doc: int | None = None
    max_tokens_per_doc: int | None = None

    @property
    @override
    def windows(self) -> int:
        return self.parts

    @property
    @override
    def parts(self) -> int:
        return len(self.documents)

    @override
    def sized(self, size: CallSize) -> CallSize:
        """Providers that bill by tokens count the query once for each document; others count search units."""
        query_bytes = len(self.query.encode())
        documents = [
            len(each.encode()) if isinstance(each, str) else sum([len(memoryview(value)) for value in each.values()])
            for each in self.documents
        ]
        return msgspec.structs.replace(
            size,
            text_bytes=size.text_bytes + query_bytes * (len(documents) - 1),
            units={
                "request": 1,
                "search_unit": search_units(query_bytes, documents),
            },
            expected_units={
                "request": 1,
                "search_unit": search_units(query_bytes // 4, [each // 4 for each in documents]),
            },
        )

    @override
    def check(self) -> None:
        super().check()
        if not self.query:
            raise InvalidRequestBody("`query` must not be empty.", param="query")
        if not self.documents:
            raise InvalidRequestBody("`documents` must have at least one document.", param="documents")
        if self.top_n is not None and self.top_n < 1:
            raise InvalidRequestBody("`top_n` must be at least 1.", param="top_n")


class Moderations(_OfACall, kw_only=True):
    """POST /v1/moderations: texts and images."""

    input: str | list[str | Part]

    @property
    @override
    def windows(self) -> int:
        return self.parts

    @property
    @override
    def parts(self) -> int:
        return 1 if isinstance(self.input, str) else len(self.input)

    @override
    def attachments(self) -> list[Attachment]:
        return [] if isinstance(self.input, str) else attachments_of(p for p in self.input if isinstance(p, Part))

    @override
    def sized(self, size: CallSize) -> CallSize:
        return msgspec.structs.replace(size, units={"request": 1}, expected_units={"request": 1})

    @override
    def check(self) -> None:
        super().check()
        if not self.input:
            raise InvalidRequestBody("`input` must not be empty.", param="input")


class _Item(Part):
    """A message or another item of a response's input."""

    role: str | None = None
    tools: Raw = NOTHING  # that the model may use from here on


class Responses(RequestSchema, kw_only=True):
    """POST /v1/responses. Stateless only: a provider would store responses in one account for all callers."""

    limit_fields: ClassVar[tuple[str, ...]] = ("max_output_tokens",)
    is_stored_by_default: ClassVar[bool] = True
    has_objects: ClassVar[bool] = True

    input: str | list[_Item]
    instructions: str | None = None
    max_output_tokens: int | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Raw = Raw(b"null")
    prompt_: Raw = msgspec.field(name="prompt", default=Raw(b"null"))

    def _messages(self) -> list[Message]:
        if isinstance(self.input, str):
            return [Message(role="user", content=self.input)]
        return [Message(role=item.role, content=item.content) for item in self.input if item.role]

    @property
    @override
    def parts(self) -> int:
        return 1 if isinstance(self.input, str) else len(self.input)

    @override
    def attachments(self) -> list[Attachment]:
        return [] if isinstance(self.input, str) else attachments_of(self.input)

    @override
    def declares_tools(self) -> bool:
        return not isinstance(self.input, str) and any(item.tools is not NOTHING for item in self.input)

    @override
    def plain_texts(self) -> list[str]:
        return [self.instructions or "", *(text_of(each.content) for each in self._messages())]

    @override
    def prompt(self, fields: Fields) -> Prompt:
        return _conversation(self._messages(), fields, instructions=self.instructions or "")

    @override
    def check(self) -> None:
        if not self.input:
            raise InvalidRequestBody("`input` must not be empty.", param="input")
        for name, is_given in (
            ("previous_response_id", self.previous_response_id is not None),
            ("conversation", bytes(self.conversation) != b"null"),
            ("prompt", bytes(self.prompt_) != b"null"),
            ("background", bool(self.background)),
        ):
            if is_given:
                raise InvalidRequestBody(
                    f"`{name}` needs an answer that is kept, and nothing is kept here: send the whole conversation.",
                    param=name,
                )


class Compaction(Responses, kw_only=True):
    """A request for the summary of a conversation; what asks for it is its last message."""

    @override
    def prompt(self, fields: Fields) -> Prompt:
        return _conversation(self._messages()[:-1], fields, instructions=self.instructions or "")


class Messages(RequestSchema, kw_only=True):
    """POST /v1/messages, as Anthropic's clients write it."""

    has_objects: ClassVar[bool] = True

    messages: list[Message]
    system: Content = None
    max_tokens: int | None = None
    thread: Raw = Raw(b"null")

    @property
    @override
    def parts(self) -> int:
        return len(self.messages)

    @override
    def attachments(self) -> list[Attachment]:
        found = attachments_of(self.messages)
        collect(self.system, found)
        return found

    @override
    def declares_tools(self) -> bool:
        lists = [each.content for each in self.messages if isinstance(each.content, list)]
        return any(isinstance(part, Part) and part.tool is not NOTHING for parts in lists for part in parts)

    @override
    def plain_texts(self) -> list[str]:
        return [text_of(self.system), *(text_of(each.content) for each in self.messages)]

    @override
    def prompt(self, fields: Fields) -> Prompt:
        return _conversation(self.messages, fields, instructions=text_of(self.system))

    @override
    def check(self) -> None:
        if bytes(self.thread) != b"null":
            # The model would get a message that continues a thread without the thread.
            raise ThreadsUnsupported(param="thread")
        if not self.messages:
            raise InvalidRequestBody("`messages` must have at least one message.", param="messages")


class CountTokens(Messages, kw_only=True):
    """POST /v1/messages/count_tokens: a message that is only measured."""

    limit_fields: ClassVar[tuple[str, ...]] = ()
    takes_temperature: ClassVar[bool] = False
    uses_tools: ClassVar[bool] = False
