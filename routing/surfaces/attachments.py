"""Images, files and recordings inside a request: held and estimated as what they are, never as text. Pure.

They are looked for where the surfaces have them, in messages and in what tools gave back, and any other long base64 in
the conversation counts as one, too. docs/limits.md has the table.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from billing.limiter.holds import document_tokens, sound_tokens

NOTHING = Raw(b"null")  # of a field that is missing
_EMPTY = (b"null", b'""', b"[]", b"{}")


class Attachment(NamedTuple):
    """An image, a file or a recording: its bytes in the body, and what to hold for it."""

    size_bytes: int
    images: int = 0
    file_tokens: int = 0
    audio_tokens: int = 0
    raw: Raw = NOTHING


_NO_ATTACHMENT = Attachment(0)


def total(attachments: Sequence[Attachment]) -> Attachment:
    """Return all attachments as one."""
    if not attachments:
        return _NO_ATTACHMENT
    return Attachment(
        size_bytes=sum([each.size_bytes for each in attachments]),
        images=sum([each.images for each in attachments]),
        file_tokens=sum([each.file_tokens for each in attachments]),
        audio_tokens=sum([each.audio_tokens for each in attachments]),
    )


def _image(raw: Raw) -> Attachment:
    return Attachment(len(memoryview(raw)), images=1, raw=raw)


def _recording(raw: Raw) -> Attachment:
    size_bytes = len(memoryview(raw))
    return Attachment(size_bytes, audio_tokens=sound_tokens(size_bytes), raw=raw)


_MEDIA_TYPE = re.compile(rb"\b(image|audio)\\?/")
_MEDIA_TYPE_WITHIN_BYTES = 256


def _file(raw: Raw) -> Attachment:
    """Return a file as what its media type says, which is at its beginning or end."""
    view = memoryview(raw)
    for part in (view[:_MEDIA_TYPE_WITHIN_BYTES], view[-_MEDIA_TYPE_WITHIN_BYTES:]):
        if (found := _MEDIA_TYPE.search(part)) is not None:
            return _image(raw) if found[1] == b"image" else _recording(raw)
    return Attachment(len(view), file_tokens=document_tokens(len(view)), raw=raw)


# Parts


class Part(Struct):
    """A part of a conversation as any surface writes it: of a message, of an item or of a tool's output; or an item.

    Its types are lenient: what has another form is for the provider to judge.
    """

    type: Any = ""
    text: Any = None
    content: "Content" = None
    image_url: Raw = NOTHING  # chat; responses, where it is a string
    input_audio: Raw = NOTHING
    audio_url: Raw = NOTHING
    video_url: Raw = NOTHING  # chat, for Gemini
    file: Raw = NOTHING
    file_data: Raw = NOTHING  # responses, as the next two
    file_url: Raw = NOTHING
    file_id: Raw = NOTHING
    source: Raw = NOTHING  # messages: images and documents
    output: Raw = NOTHING  # responses: of a tool
    outputs: Raw = NOTHING
    result: Raw = NOTHING  # responses: an image that a tool has made
    url: Raw = NOTHING
    data: Raw = NOTHING  # MCP: images and audio
    images: Raw = NOTHING
    audio: Raw = NOTHING
    tool: Raw = NOTHING  # messages: one that the model may use from here on

    def collect(self, found: list[Attachment]) -> None:
        """Add the attachments, also those of parts inside."""
        kind = self.type if isinstance(self.type, str) else ""
        if kind in _WITHOUT:
            return
        if kind not in _WITH_OUTPUT and _fields_of(self) != _NO_FIELDS:
            found += self._own(is_image="image" in kind or "screenshot" in kind)
        for raw in (self.output, self.outputs):
            # A tool's text is not even decoded.
            if raw is not NOTHING and memoryview(raw)[:1] in _NESTED:
                collect(_decoded(_content, raw), found)
        collect(self.content, found)

    def _own(self, *, is_image: bool) -> Iterator[Attachment]:
        if _is_given(self.image_url):
            yield _image(self.image_url)
        if _is_given(self.source):
            yield from _of_source(self.source, is_image=is_image)
        for raw in (self.input_audio, self.audio_url):
            if _is_given(raw):
                yield _recording(raw)
        for raw in (self.file, self.file_data, self.file_url, self.video_url):
            if _is_given(raw):
                yield _file(raw)
        for raw in (self.result, self.url, self.data):
            if is_image and _is_given(raw):
                yield _image(raw)
        if self.type in _SPEECH and _is_given(self.data):
            yield _recording(self.data)
        if _is_given(self.file_id) and self.type in _UPLOADED:
            yield _image(self.file_id) if is_image else _file(self.file_id)
        yield from _made_by_model(self.images, self.audio)


class Message(Struct):
    """A message of chat or messages."""

    role: str
    content: "Content" = None
    images: Raw = NOTHING  # chat: images and speech that the model has made
    audio: Raw = NOTHING

    def collect(self, found: list[Attachment]) -> None:
        """Add the attachments of its parts, and its own."""
        if not isinstance(self.content, str):
            collect(self.content, found)
        if self.images is not NOTHING or self.audio is not NOTHING:
            found += _made_by_model(self.images, self.audio)


_Scalar = str | int | float | bool | None
Content = list[Part | list[Raw] | _Scalar] | Part | _Scalar

# Most parts and items: they have a text only, or what the model wrote.
_WITHOUT = frozenset({
    "function_call", "input_text", "output_text", "reasoning", "redacted_thinking", "text", "thinking", "tool_use",
})  # fmt: skip
_WITH_OUTPUT = frozenset({"custom_tool_call_output", "function_call_output"})
_fields_of = attrgetter(
    "image_url", "input_audio", "audio_url", "video_url", "file", "file_data", "file_url", "file_id", "source",
    "result", "url", "data", "images", "audio",
)  # fmt: skip
_NO_FIELDS = _fields_of(Part())
# Parts that name an uploaded file, whose size is not known. In others such an id is only mentioned.
_UPLOADED = ("computer_screenshot", "container_upload", "document", "file", "image", "input_file", "input_image")
_NESTED = (b"[", b"{")
_SPEECH = ("audio", "output_audio")


class _Source(Struct):
    type: Any = ""
    content: Content = None


_content: msgspec.json.Decoder[Content] = msgspec.json.Decoder(Content)
_source = msgspec.json.Decoder(_Source)
_raws = msgspec.json.Decoder(list[Raw])
_raw_fields = msgspec.json.Decoder(dict[str, Raw])


def attachments_of(parts: Iterable[Part | Message]) -> list[Attachment]:
    """Return the attachments of a conversation."""
    found: list[Attachment] = []
    for part in parts:
        part.collect(found)
    return found


def collect(content: Content, found: list[Attachment]) -> None:
    """Add the attachments of a content."""
    if isinstance(content, list):
        for part in content:
            if isinstance(part, Part):
                part.collect(found)
    elif isinstance(content, Part):
        content.collect(found)


def text_of(content: Content) -> str:
    """Return the text of a message."""
    if isinstance(content, list):
        texts = [part.text for part in content if isinstance(part, Part)]
        return "\n".join([text for text in texts if text and isinstance(text, str)])
    return content if isinstance(content, str) else ""


def _is_given(raw: Raw) -> bool:
    return raw is not NOTHING and memoryview(raw) not in _EMPTY


def _decoded(decoder: msgspec.json.Decoder[Any], raw: Raw) -> Any:
    """Decode; None for what has another form."""
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _of_source(source: Raw, *, is_image: bool) -> list[Attachment]:
    """Return the attachments of a source. A plain document is text, and so is a search result's name."""
    found = _decoded(_source, source)
    if found is None or found.type == "text":
        return []
    if found.content is not None:
        inside: list[Attachment] = []
        collect(found.content, inside)
        return inside
    return [_image(source) if is_image else _file(source)]


def _made_by_model(images: Raw, audio: Raw) -> Iterator[Attachment]:
    """Yield images, and speech without its transcript, which is text; often only its id is given."""
    if _is_given(images):
        each = _decoded(_raws, images)
        yield Attachment(len(memoryview(images)), images=1 if each is None else len(each), raw=images)
    if _is_given(audio):
        fields = _decoded(_raw_fields, audio)
        yield _recording(audio if fields is None else fields.get("data", NOTHING))


_INLINE_IMAGE = re.compile(rb'\s*"data:image\\?/')
_IMAGE_TYPE = re.compile(rb'\s*"image\\?/')


def is_inline_image(attachment: Attachment) -> bool:
    """Return whether it is one image, whole and by its own account: as data, not by a URL or an id.

    What stands behind a URL is found out by whoever opens it; it may be a document or a film.
    """
    if attachment.images != 1 or attachment.raw is NOTHING:
        return False
    if bytes(memoryview(attachment.raw)[:1]) == b'"':
        return _INLINE_IMAGE.match(attachment.raw) is not None
    fields = _decoded(_raw_fields, attachment.raw) or {}
    if "url" in fields:
        return _INLINE_IMAGE.match(fields["url"]) is not None
    if "data" not in fields or "file_id" in fields:
        return False
    return _IMAGE_TYPE.match(fields.get("media_type", NOTHING)) is not None


# Long strings

# Shorter ones are looked for in no unknown place: as text they are a few thousand tokens.
MIN_LONG_BYTES = 8 * 1024
# A long string cannot be missed at this distance.
_STEP_BYTES = MIN_LONG_BYTES // 2
_BASE64 = re.compile(rb"[A-Za-z0-9+/=_\\-]{64}")
# Of a long string, and of what is before it: enough for a name, and for a data URL's beginning.
_HEAD_BYTES = 128
_NAME = re.compile(rb'"(\w+)"\s*:\s*"$')
# Fields of text, of which models read every byte.
_TEXT_NAMES = frozenset({
    b"arguments", b"content", b"delta", b"description", b"encrypted_content", b"id", b"input", b"instructions", b"logs",
    b"name", b"output", b"partial_json", b"prompt", b"refusal", b"signature", b"stderr", b"stdout", b"summary", b"text",
    b"thinking", b"title", b"transcript",
})  # fmt: skip
# Fields that may have base64 without saying so.
_BASE64_NAMES = frozenset({
    b"audio", b"audio_data", b"audio_url", b"b64", b"b64_json", b"base64", b"blob", b"bytes", b"data", b"file",
    b"file_bytes", b"file_data", b"image", b"image_base64", b"image_data", b"image_url", b"result", b"screenshot",
    b"source", b"uri", b"url", b"video", b"video_url",
})  # fmt: skip
# PNG, JPEG, GIF.
_IMAGE_BEGINNINGS = (b"iVBORw0KGgo", b"/9j/", b"\\/9j\\/", b"R0lGOD")


class _LongString(NamedTuple):
    name: bytes  # of its field; empty for elements of lists, and inside other strings
    head: bytes
    size_bytes: int
    is_encrypted: bool


def long_strings(conversation: Raw | None, known: Iterable[Attachment]) -> list[Attachment]:
    """Return the attachments that stand anywhere else in a conversation: long strings of base64."""
    if conversation is None:
        return []
    unknown = list(_long_strings(conversation))
    if not unknown:
        return []
    seen = Counter((each.head, each.size_bytes) for found in known for each in _long_strings(found.raw))
    attachments = []
    for each in unknown:
        if seen[each.head, each.size_bytes]:
            seen[each.head, each.size_bytes] -= 1
        elif _is_attachment(each):
            attachments.append(_attachment(each))
    return attachments


def _long_strings(raw: Raw) -> Iterator[_LongString]:
    """Yield all strings of base64, with or without a data URL's beginning, that are not shorter than the minimum."""
    view = memoryview(raw)
    if len(view) < MIN_LONG_BYTES or not any(_BASE64.match(view, at) for at in range(0, len(view), _STEP_BYTES)):
        return
    json, at = bytes(raw), 0
    while at < len(json):
        if _BASE64.match(json, at) is None:
            at += _STEP_BYTES
            continue
        end = json.find(b'"', at)
        if end < 0:
            return  # a number: there is no string behind it
        start = json.rfind(b'"', max(0, at - _STEP_BYTES - _HEAD_BYTES), at) + 1
        if start and end - start >= MIN_LONG_BYTES:
            before = json[max(0, start - _HEAD_BYTES) : start]
            name = _NAME.search(before)
            yield _LongString(
                name=name[1] if name else b"",
                head=json[start : start + _HEAD_BYTES],
                size_bytes=end - start,
                is_encrypted=b"redacted" in before,
            )
        at = end + 1


def _is_attachment(string: _LongString) -> bool:
    if string.head.startswith(b"data:"):
        return bool(string.name) and string.name not in _TEXT_NAMES
    return string.name in _BASE64_NAMES and not string.is_encrypted


def _attachment(string: _LongString) -> Attachment:
    media = _MEDIA_TYPE.search(string.head) if string.head.startswith(b"data:") else None
    kind = media[1] if media else b"audio" if b"audio" in string.name else b""
    if kind == b"image" or string.head.startswith(_IMAGE_BEGINNINGS):
        return Attachment(string.size_bytes, images=1)
    if kind == b"audio":
        return Attachment(string.size_bytes, audio_tokens=sound_tokens(string.size_bytes))
    return Attachment(string.size_bytes, file_tokens=document_tokens(string.size_bytes))
