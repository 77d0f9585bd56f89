"""Request schemas of the metered surfaces: the few fields that the gateway reads. Pure.

All other fields pass through, so types are strict only where the gateway decides by them.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from typing_extensions import override

from billing.limiter.holds import document_tokens, sound_tokens
from routing.errors import InvalidRequestBody, ThreadsUnsupported
from routing.inference.infer import Prompt

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

    def limits(self) -> dict[str, int]:
        """Return the bounds of the output that were given, by field."""
        given = {name: getattr(self, name) for name in self.limit_fields}
        return {name: value for name, value in given.items() if value is not None}

    def attachments(self) -> "list[Attachment]":
        """Return images and files inside the body: their bytes are no text."""
        return []

    def prompt(self, fields: Fields) -> Prompt:
        """Return the texts that stage inference reads; none on surfaces without messages."""
        return Prompt(last_user_text="")

    def check(self) -> None:
        """Raise InvalidRequestBody for rules that types cannot express; bounds of the output are checked elsewhere."""


class Attachment(NamedTuple):
    """An image, a file or a recording inside the body: its bytes, and the tokens to hold for it."""

    size_bytes: int
    images: int = 0
    file_tokens: int = 0
    audio_tokens: int = 0


_MEDIA_TYPE = re.compile(rb"\b(image|audio)\\?/")
_MEDIA_TYPE_WITHIN_BYTES = 256


def _image(raw: Raw) -> Attachment:
    return Attachment(len(bytes(raw)), images=1)


def _sound(raw: Raw) -> Attachment:
    size_bytes = len(bytes(raw))
    return Attachment(size_bytes, audio_tokens=sound_tokens(size_bytes))


def _file(raw: Raw) -> Attachment:
    """Return a file as what its media type says, where it begins or ends with one."""
    beginning, end = bytes(raw)[:_MEDIA_TYPE_WITHIN_BYTES], bytes(raw)[-_MEDIA_TYPE_WITHIN_BYTES:]
    media = _MEDIA_TYPE.search(beginning) or _MEDIA_TYPE.search(end)
    if media is not None:
        return _image(raw) if media[1] == b"image" else _sound(raw)
    size_bytes = len(bytes(raw))
    return Attachment(size_bytes, file_tokens=document_tokens(size_bytes))


# Nothing in it matters that is no part or list of parts: such a form passes, for the provider to judge.
_Scalar = str | int | float | bool | None
_NOTHING = Raw(b"null")


class _Part(Struct):
    """A part of a conversation as any surface writes it: of a message's content, or of what a tool gave back."""

    type: Any = ""
    text: Any = None
    image_url: Raw = _NOTHING  # chat; responses, where it is a string
    input_audio: Raw = _NOTHING
    audio: Raw = _NOTHING
    audio_url: Raw = _NOTHING
    file: Raw = _NOTHING
    file_data: Raw = _NOTHING  # responses, as the next two
    file_url: Raw = _NOTHING
    file_id: Raw = _NOTHING
    video_url: Raw = _NOTHING  # chat, for Gemini
    source: Raw = _NOTHING  # messages: images and documents
    url: Raw = _NOTHING  # responses: images of the code interpreter
    result: Raw = _NOTHING  # responses: a generated image
    images: Raw = _NOTHING  # chat: images that the model has made
    output: Raw = _NOTHING  # responses: of a tool
    outputs: Raw = _NOTHING
    content: "list[_Part | list[Raw] | _Scalar] | _Part | _Scalar" = None  # messages: of a tool

    def attachments(self) -> Iterator[Attachment]:
        kind = self.type if isinstance(self.type, str) else ""
        is_image = "image" in kind or "screenshot" in kind
        if _is_given(self.image_url):
            yield _image(self.image_url)
        for sound in (self.input_audio, self.audio_url):
            if _is_given(sound):
                yield _sound(sound)
        for file in (self.file, self.file_data, self.file_url, self.video_url):
            if _is_given(file):
                yield _file(file)
        if _is_given(self.source):
            yield from _of_source(self.source, is_image=is_image)
        if _is_given(self.audio):
            yield _recording(self.audio)
        if is_image:
            for image in (self.url, self.result):
                if _is_given(image):
                    yield _image(image)
        if _is_given(self.file_id) and kind in _UPLOADED:
            yield _image(self.file_id) if is_image else _file(self.file_id)
        if _is_given(self.images):
            yield from _of_images(self.images)
        for parts in (self.output, self.outputs):
            yield from _attachments_in(_decoded(parts))
        yield from _attachments_in(self.content)


_Content = list[_Part | list[Raw] | _Scalar] | _Part | _Scalar

# Parts that name an uploaded file, whose size is not known. Elsewhere such an id is only mentioned.
_UPLOADED = ("container_upload", "computer_screenshot", "document", "file", "image", "input_file", "input_image")

_content = msgspec.json.Decoder(_Content)
_raws = msgspec.json.Decoder(list[Raw])
_raw_fields = msgspec.json.Decoder(dict[str, Raw])


def _is_given(raw: Raw) -> bool:
    return raw is not _NOTHING and bytes(raw) not in (b"null", b'""')


def _decoded(raw: Raw) -> _Content:
    """Decode parts; None for anything else. A tool's text is not even decoded."""
    if not bytes(raw)[:1] in (b"[", b"{"):
        return None
    try:
        return _content.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _attachments_in(content: _Content) -> Iterator[Attachment]:
    if isinstance(content, _Part):
        yield from content.attachments()
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, _Part):
                yield from part.attachments()


def _of_images(images: Raw) -> list[Attachment]:
    try:
        return [_image(each) for each in _raws.decode(images)]
    except (msgspec.MsgspecError, RecursionError):
        return [_image(images)]


def _recording(audio: Raw) -> Attachment:
    """Return the recording of a message. Its transcript is text; often only its id is given."""
    try:
        fields = _raw_fields.decode(audio)
    except (msgspec.MsgspecError, RecursionError):
        return _sound(audio)
    return _sound(fields.get("data", Raw(b"")))


class _Source(Struct):
    type: Any = ""
    content: _Content = None


_source = msgspec.json.Decoder(_Source)


def _of_source(source: Raw, *, is_image: bool) -> list[Attachment]:
    """Return the attachments of a source. A plain document is text, and so is a search result's name."""
    try:
        found = _source.decode(source)
    except (msgspec.MsgspecError, RecursionError):
        return []
    if found.content is not None:
        return list(_attachments_in(found.content))
    if found.type == "text":
        return []
    return [_image(source) if is_image else _file(source)]


def _text(content: _Content) -> str:
    if isinstance(content, list):
        texts = [part.text for part in content if isinstance(part, _Part)]
        return "\n".join(text for text in texts if text and isinstance(text, str))
    return content if isinstance(content, str) else ""


class _Message(Struct):
    role: str
    content: _Content = None


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


def _conversation(messages: list[_Message], fields: Fields, *, instructions: str = "") -> Prompt:
    """Return the user's last message and the system's texts. Tool results in the user's role do not count."""
    user_texts = (text for each in reversed(messages) if each.role == "user" and (text := _text(each.content)))
    system = [_text(each.content) for each in messages if each.role in ("system", "developer")]
    return Prompt(
        last_user_text=next(user_texts, ""),
        system_text="\n".join([instructions, *system] if instructions else system),
        tool_names=tool_names(fields),
    )


def _attachments(messages: list[_Message]) -> list[Attachment]:
    lists = (each.content for each in messages if isinstance(each.content, list))
    return [attachment for parts in lists for part in parts for attachment in part.attachments()]


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

    messages: list[_Message]
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
        return _attachments(self.messages)

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
    def parts(self) -> int:
        return _count_of(self.input)

    @override
    def check(self) -> None:
        if not self.input:
            raise InvalidRequestBody("`input` must not be empty.", param="input")
        if self.stream:
            raise InvalidRequestBody("Embeddings do not stream.", param="stream")


class _Item(Struct):
    """A message or another item of a response's input; only messages are inspected."""

    role: str | None = None
    content: _Content = None


class Responses(RequestSchema, kw_only=True):
    """POST /v1/responses. Stateless only: a provider would store responses in one account for all callers."""

    limit_fields: ClassVar[tuple[str, ...]] = ("max_output_tokens",)
    is_stored_by_default: ClassVar[bool] = True

    input: str | list[_Item]
    instructions: str | None = None
    max_output_tokens: int | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Raw = Raw(b"null")
    prompt_: Raw = msgspec.field(name="prompt", default=Raw(b"null"))

    def _messages(self) -> list[_Message]:
        if isinstance(self.input, str):
            return [_Message("user", self.input)]
        return [_Message(item.role, item.content) for item in self.input if item.role]

    @property
    @override
    def parts(self) -> int:
        return 1 if isinstance(self.input, str) else len(self.input)

    @override
    def attachments(self) -> list[Attachment]:
        return _attachments(self._messages())

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


class Messages(RequestSchema, kw_only=True):
    """POST /v1/messages, as Anthropic's clients write it."""

    messages: list[_Message]
    system: _Content = None
    max_tokens: int | None = None
    thread: Raw = Raw(b"null")

    @property
    @override
    def parts(self) -> int:
        return len(self.messages)

    @override
    def attachments(self) -> list[Attachment]:
        return _attachments(self.messages)

    @override
    def prompt(self, fields: Fields) -> Prompt:
        return _conversation(self.messages, fields, instructions=_text(self.system))

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
