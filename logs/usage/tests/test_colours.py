"""Colours of series."""

import math
import re
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.env import REPOSITORY
from logs.usage.colours import HUES, TEXTURES, hue_of, marks_of

names = st.sets(st.text(min_size=1, max_size=30), max_size=12)


@given(names, names)
def test_a_hue_does_not_depend_on_the_chart(chosen: set[str], others: set[str]) -> None:
    alone, together = marks_of(chosen), marks_of(chosen | others)
    for name in chosen:
        assert alone[name].hue == together[name].hue == hue_of(name)
        assert 1 <= alone[name].hue <= HUES


@given(st.sets(st.text(min_size=1), min_size=2, max_size=TEXTURES))
def test_series_of_one_chart_all_look_different(chosen: set[str]) -> None:
    assert len(set(marks_of(chosen).values())) == len(chosen)


def test_hues_stay_as_they_are() -> None:
    """Another hash would repaint every chart: readers know their models by colour."""
    known = {"claude-sonnet-5.5": 4, "gpt-6.1-sol": 5, "deepseek-v4.1-flash": 6, "gpt-4o-mini": 2}
    assert {name: hue_of(name) for name in known} == known


def _linear(colour: str) -> list[float]:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def _luminance(colour: str) -> float:
    r, g, b = _linear(colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _oklab(colour: str) -> tuple[float, float, float]:
    r, g, b = _linear(colour)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    middle = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.793617785 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.428592205 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.808675766 * short,
    )


@pytest.mark.parametrize(("theme", "panel"), [(0, "#ffffff"), (1, "#12181d"), (2, "#12181d")])
def test_hues_can_be_told_apart_in_every_theme(theme: int, panel: str) -> None:
    found = re.findall(r"--series-(\d): (#[0-9a-f]{6});", (REPOSITORY / "frontend" / "app.css").read_text())
    colours = dict(found[theme * (HUES + 1) : (theme + 1) * (HUES + 1)])
    assert sorted(colours) == [str(n) for n in range(HUES + 1)]
    for n, colour in colours.items():
        lighter, darker = sorted((_luminance(colour), _luminance(panel)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 3, f"series-{n}: WCAG 1.4.11"
    close = [pair for pair in combinations(colours.values(), 2) if math.dist(_oklab(pair[0]), _oklab(pair[1])) < 0.11]
    assert not close
