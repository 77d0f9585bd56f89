"""Bounds on how much structure a JSON body may have, checked before it is parsed. Pure.

Parsing makes an object of every `{}`: a body of three million of them is nine megabytes, and seconds of work. Text
costs next to nothing, so what stands in strings does not count.
"""

from collections.abc import Iterable, Iterator

# Objects and lists; colons, which are fields; and commas, most of which are between numbers: the tokens of texts to
# embed.
MAX_CONTAINERS = 40_000
MAX_FIELDS = 80_000
MAX_VALUES = 320_000
# Bodies are light, some milliseconds of work at most, up to here; or if they have only so many objects, which are most
# work, and above another size only so many lists and commas.
LIGHT_BYTES = 32 * 1024
LIGHT_LISTS_BYTES = 64 * 1024
MAX_LIGHT_BYTES = 1024 * 1024
MAX_LIGHT_CONTAINERS = 2_000
MAX_LIGHT_VALUES = 10_000

# Looked at in one step: the interpreter goes on with other threads after each.
_STEP_BYTES = 64 * 1024


class TooComplex(ValueError):
    """The body has more structure than any request."""


def is_light(body: bytes) -> bool:
    """Return whether a body is some milliseconds of work at most, by a look that takes a thousandth of that.

    What stands in strings counts here. Fields need no count: each has a comma or an object.
    """
    size = len(body)
    return size <= LIGHT_BYTES or (
        size <= MAX_LIGHT_BYTES
        and body.count(b"{") <= MAX_LIGHT_CONTAINERS
        and (
            size <= LIGHT_LISTS_BYTES
            or (body.count(b"[") <= MAX_LIGHT_CONTAINERS and body.count(b",") <= MAX_LIGHT_VALUES)
        )
    )


def check_complexity(body: bytes) -> None:
    """Raise TooComplex for a body above a bound, having looked at little more than what is allowed."""
    # Most bodies are below the bounds with all that their strings contain.
    if len(body) > LIGHT_BYTES and _has_more(_in_steps(body)) and _has_more(without_strings(body)):
        raise TooComplex(
            f"The body may have at most {MAX_CONTAINERS} objects and lists, {MAX_FIELDS} fields and {MAX_VALUES}"
            " commas."
        )


def _has_more(pieces: Iterable[bytes]) -> bool:
    """Return whether the pieces have more structure than the bounds."""
    containers, fields, values = MAX_CONTAINERS, MAX_FIELDS, MAX_VALUES
    for piece in pieces:
        containers -= piece.count(b"{") + piece.count(b"[")
        fields -= piece.count(b":")
        values -= piece.count(b",")
        if containers < 0 or fields < 0 or values < 0:
            return True
    return False


def _in_steps(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _STEP_BYTES):
        yield body[start : start + _STEP_BYTES]


def without_strings(body: bytes) -> Iterator[bytes]:
    """Yield what stands outside of strings, in steps. The body is JSON."""
    start, is_in_string = 0, False
    while start < len(body):
        end = start + _STEP_BYTES
        step = body[start:end]
        if (len(step) - len(step.rstrip(b"\\"))) % 2:
            end += 1
            step = body[start:end]  # with what the last backslash escapes
        parts = step.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b"".join(parts[is_in_string::2])
        is_in_string ^= len(parts) % 2 == 0
        start = end
