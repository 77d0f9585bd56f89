"""Joining the parts of an answer: markers removed, references and numbered headings renumbered. Pure.

Parts come in order, so that what was sent is never touched again: the first as it was written, each later one fitted
to what is before it.
"""

import re
from collections.abc import Callable, Iterator

OPEN, CLOSE = "\N{MATHEMATICAL LEFT WHITE SQUARE BRACKET}", "\N{MATHEMATICAL RIGHT WHITE SQUARE BRACKET}"
# A longer text in such brackets is the answer's own.
MAX_MARKER_CHARS = 40
_MARKER = re.compile(rf"[ \t]*{OPEN}cfx[^{CLOSE}\n]{{0,{MAX_MARKER_CHARS}}}{CLOSE}[ \t]*\n?")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_DEFINITION = re.compile(r"^\[(\d{1,3})\](:?)(?=\s)")
_REFERENCE = re.compile(r"\[(\d{1,3})\](?![(\[:])")
_CODE_SPAN = re.compile(r"(`+)(?:(?!\1).)+\1")
_NUMBERED = re.compile(r"^(#{1,6}) (\d{1,3})([.)]) ")


class Assembly:
    """An answer that grows part by part."""

    def __init__(self) -> None:
        self._references = 0  # the highest number that is taken
        self._numbers: dict[int, int] = {}  # level of numbered headings -> the last number
        self._held = ""  # of a text that is passed as it comes: what may be the beginning of a marker
        self.is_empty = True

    def pass_on(self, text: str) -> str:
        """Return what may be sent now of the first part's text, which comes in pieces."""
        text = self._held + text
        at = text.rfind(OPEN)
        is_marker = at >= 0 and CLOSE not in text[at:] and len(text) - at <= MAX_MARKER_CHARS + len("[cfx]")
        at = at if is_marker else len(text)
        # A marker's line end and the spaces before it belong to it, and may be still to come.
        shown = len(text[:at].rstrip(" \t")) if is_marker else len(text)
        self._held = text[shown:]
        return _MARKER.sub("", text[:shown])

    def first_end(self, whole: str) -> str:
        """End the part that was passed on, of which `whole` is the text. Returns the rest of it."""
        rest, self._held = _MARKER.sub("", self._held), ""
        self._note(_without_markers(whole))
        return rest

    def add(self, text: str) -> str:
        """Return a part's whole text as it is to be sent, with the gap before it."""
        text = self._fitted(_without_markers(text).strip("\n"))
        if not text.strip():
            return ""
        gap = "" if self.is_empty else "\n\n"
        self._note(text)
        return gap + text

    def _note(self, text: str) -> None:
        self.is_empty = self.is_empty and not text.strip()
        for line in _prose(text):
            if found := _DEFINITION.match(line):
                self._references = max(self._references, int(found[1]))
            elif found := _NUMBERED.match(line):
                self._numbers[len(found[1])] = int(found[2])

    def _fitted(self, text: str) -> str:
        if self.is_empty:
            return text
        lines = list(_prose(text))
        own = sorted({int(found[1]) for line in lines if (found := _DEFINITION.match(line))})
        base = self._references
        numbers = {each: base + n for n, each in enumerate(own, start=1)} if base else {each: each for each in own}
        headings = [(len(found[1]), int(found[2])) for line in lines if (found := _NUMBERED.match(line))]
        shift = 0
        if headings:
            level = min([each for each, _ in headings])
            first = next(number for each, number in headings if each == level)
            last = self._numbers.get(level)
            shift = last + 1 - first if last is not None and first <= last else 0

        def fitted(line: str) -> str:
            if found := _DEFINITION.match(line):
                return f"[{numbers[int(found[1])]}]{line[found.end(1) + 1 :]}"
            if (found := _NUMBERED.match(line)) and len(found[1]) == level:
                return f"{found[1]} {int(found[2]) + shift}{found[3]} {line[found.end() :]}"
            return _outside_code(line, lambda plain: _REFERENCE.sub(lambda each: _renumbered(each, numbers), plain))

        level = min([each for each, _ in headings], default=0)
        return _mapped(text, fitted)


def _renumbered(found: re.Match[str], numbers: dict[int, int]) -> str:
    """A reference by its new number; one that points nowhere, among others that do, is left out."""
    if not numbers:
        return found[0]
    number = numbers.get(int(found[1]))
    return f"[{number}]" if number is not None else ""


def _without_markers(text: str) -> str:
    return _MARKER.sub("", text)


def _prose(text: str) -> Iterator[str]:
    """Lines outside of fenced code."""
    seen: list[str] = []

    def see(line: str) -> str:
        seen.append(line)
        return line

    _mapped(text, see)
    return iter(seen)


def _mapped(text: str, change: Callable[[str], str]) -> str:
    """Change each line that is not in fenced code."""
    fence = ""
    lines = text.split("\n")
    for n, line in enumerate(lines):
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif found:
            fence = found[1]
        else:
            lines[n] = change(line)
    return "\n".join(lines)


def _outside_code(line: str, change: Callable[[str], str]) -> str:
    """Change what of a line is not code."""
    parts, at = [], 0
    for span in _CODE_SPAN.finditer(line):
        parts += [change(line[at : span.start()]), span[0]]
        at = span.end()
    return "".join([*parts, change(line[at:])])


_MISSING = {
    "en": ("Not included", {"cost": "cost cap", "time": "time limit", "length": "cut short", "failed": "failed"}),
    "tr": ("Eksik", {"cost": "maliyet sınırı", "time": "süre sınırı", "length": "kısa kesildi", "failed": "başarısız"}),
}


def note_of(missing: list[tuple[str, str]], language: str) -> str:
    """Name the parts that are missing, as (title, why), at the end of the answer; empty when none is."""
    if not missing:
        return ""
    words, reasons = _MISSING.get(language, _MISSING["en"])
    named = "; ".join([f"{title} ({reasons.get(why, why)})" for title, why in missing])
    return f"\n\n---\n\n*{words}: {named}*"
