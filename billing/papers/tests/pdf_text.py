"""Text of a PDF that Typst made, read from its streams: no PDF library is needed for that."""

import re
import zlib
from collections.abc import Iterator

_OBJECT = re.compile(rb"(?:^|\n)(\d+) 0 obj\b(.*?)\nendobj", re.DOTALL)
_STREAM = re.compile(rb"stream\r?\n(.*)\r?\nendstream", re.DOTALL)
_TOKEN = re.compile(rb"/(f\d+) [\d.]+ Tf|\bET\b|\(")
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}


def text_of(pdf: bytes) -> str:
    """All text of the file, page by page; words are where glyphs of a space are."""
    objects = {int(number): body for number, body in _OBJECT.findall(pdf)}
    fonts = _fonts(objects)
    return "\n".join(_shown(_stream(body), fonts) for body in objects.values() if b" Tf" in _stream(body))


def _stream(body: bytes) -> bytes:
    found = _STREAM.search(body)
    if found is None:
        return b""
    return zlib.decompress(found[1]) if b"/FlateDecode" in body else found[1]


def _fonts(objects: dict[int, bytes]) -> dict[bytes, dict[int, str]]:
    """Characters of glyphs, by the name of the font in the pages' resources."""
    named: dict[bytes, dict[int, str]] = {}
    for body in objects.values():
        for name, number in re.findall(rb"/(f\d+) (\d+) 0 R", body):
            to_unicode = re.search(rb"/ToUnicode (\d+) 0 R", objects[int(number)])
            if to_unicode:
                named[name] = dict(_characters(_stream(objects[int(to_unicode[1])])))
    return named


def _characters(cmap: bytes) -> Iterator[tuple[int, str]]:
    for block in re.findall(rb"beginbfchar(.*?)endbfchar", cmap, re.DOTALL):
        for glyph, units in re.findall(rb"<([0-9A-Fa-f]+)>\s*<([0-9A-Fa-f]+)>", block):
            yield int(glyph, 16), bytes.fromhex(units.decode()).decode("utf-16-be")


def _shown(content: bytes, fonts: dict[bytes, dict[int, str]]) -> str:
    parts: list[str] = []
    font: dict[int, str] = {}
    at = 0
    while found := _TOKEN.search(content, at):
        at = found.end()
        if found[1]:
            font = fonts[found[1]]
        elif found[0] == b"ET":
            parts.append("\n")
        else:
            end = _end_of_string(content, at)
            glyphs = re.sub(rb"\\([0-7]{1,3}|.)", _unescaped, content[at:end], flags=re.DOTALL)
            parts += [font.get(int.from_bytes(glyphs[n : n + 2]), "?") for n in range(0, len(glyphs), 2)]
            at = end + 1
    return "".join(parts)


def _end_of_string(content: bytes, at: int) -> int:
    """Index of the parenthesis that closes a string; balanced ones inside need no backslash."""
    depth = 1
    while True:
        if content[at] == ord("\\"):
            at += 1
        else:
            depth += {ord("("): 1, ord(")"): -1}.get(content[at], 0)
            if depth == 0:
                return at
        at += 1


def _unescaped(found: "re.Match[bytes]") -> bytes:
    escaped = found[1]
    return bytes([int(escaped, 8)]) if escaped[:1].isdigit() else _ESCAPES.get(escaped, escaped)
