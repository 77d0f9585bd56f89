"""Colours of series: a name has the same hue in every chart, range and page. Pure."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

HUES = 8  # `--series-1` to `--series-8` of the stylesheet; `--series-0` is grey
TEXTURES = 4  # plain, and three kinds of stripes
# Chosen so that the models of the catalogue in config/ spread evenly. Another one would move every model's colour.
_SALT = b"3515"


@dataclass(frozen=True, slots=True)
class Mark:
    """Hue of a series, and the texture that tells it from another of the same hue in one chart; 0 is plain."""

    hue: int
    texture: int = 0


GREY = Mark(0)


def hue_of(name: str) -> int:
    """Hue of a name, 1 to HUES. Depends on nothing but the name, so that it is the same everywhere and for ever."""
    digest = hashlib.blake2b(name.encode(), digest_size=4, salt=_SALT).digest()
    return int.from_bytes(digest) % HUES + 1


def marks_of(names: Iterable[str]) -> dict[str, Mark]:
    """Marks of the series of one chart, all different while no more than TEXTURES names share a hue.

    Names that share a hue keep it and differ by texture, in the order of the names. Refused: moving to the next free
    hue, which gives a model one colour today and another when a range has other models beside it.
    """
    taken: dict[int, int] = {}
    marks = {}
    for name in sorted(set(names)):
        hue = hue_of(name)
        marks[name] = Mark(hue, taken.get(hue, 0) % TEXTURES)
        taken[hue] = taken.get(hue, 0) + 1
    return marks
