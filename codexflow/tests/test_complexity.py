"""Bounds on the structure of JSON bodies."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.lib import complexity
from codexflow.lib.complexity import MAX_CONTAINERS, MAX_FIELDS, MAX_VALUES, TooComplex, check_complexity, is_light

PADDING = b'"' + b"x" * complexity.LIGHT_BYTES + b'"'


def of(*values: bytes) -> bytes:
    """Build a list long enough to be looked at."""
    return b"[" + b",".join((PADDING, *values)) + b"]"


@pytest.mark.parametrize(
    "value",
    [
        of(*[b"{}"] * MAX_CONTAINERS),
        of(*[b"{ }"] * MAX_CONTAINERS),
        of(*[b"[\n]"] * MAX_CONTAINERS),
        of(b"[" * MAX_CONTAINERS + b"]" * MAX_CONTAINERS),
        of(b'{"a":' * MAX_CONTAINERS + b"1" + b"}" * MAX_CONTAINERS),
        of(b"{" + b",".join([b'"a" : 1'] * (MAX_FIELDS + 1)) + b"}"),
        of(*[b"1"] * (MAX_VALUES + 1)),
        of(*[b'""'] * (MAX_VALUES + 1)),
        of(*[b'"\\""'] * (MAX_VALUES + 1)),
        of(*[b'"\\\\"'] * (MAX_VALUES + 1)),
        b'"' + b"[" * 200_000,  # no JSON, and not all of it a string either
        b'"\\"' + b"x" * 100_000 + b'"' + b"[" * 50_000,
    ],
    ids=range(12),
)
def test_a_body_above_a_bound_is_refused(value: bytes) -> None:
    if value.count(b'"') == 1:
        check_complexity(value)  # all of it is a string that does not end
        return
    with pytest.raises(TooComplex, match="at most"):
        check_complexity(value)


@pytest.mark.parametrize(
    "value",
    [
        of(*[b"{}"] * (MAX_CONTAINERS - 1)),
        of(*[b"1"] * MAX_VALUES),
        json.dumps("{[,:" * 300_000).encode(),
        json.dumps(json.dumps([{"a": [1, "\\", '"']}] * 100_000)).encode(),
        json.dumps(['\\"{' * 30_000] * 10).encode(),
        json.dumps([{"type": "text", "text": "x" * 400, "cache_control": None}] * 20_000).encode(),
        json.dumps([{"role": "user", "content": '{"a": [1, 2]}, ' * 30}] * 20_000).encode(),
    ],
    ids=range(7),
)
def test_text_does_not_count_and_what_agents_send_passes(value: bytes) -> None:
    check_complexity(value)


def test_short_bodies_are_not_looked_at() -> None:
    short = b"[" * complexity.LIGHT_BYTES
    check_complexity(short)
    assert is_light(short)


def test_a_long_text_is_light_up_to_a_megabyte() -> None:
    assert is_light(b'"' + b"x" * 900_000 + b'"')
    assert not is_light(b'"' + b"x" * 1_100_000 + b'"')
    assert not is_light(of(*[b"{}"] * 5_000))
    assert not is_light(of(*[b"1"] * 40_000))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\{}[],:é\n'),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='a"\\{[,:', max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def _size(value: Any) -> tuple[int, int, int]:
    """Containers, colons and commas outside of strings."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None:
        return (0, 0, 0)
    sizes = [_size(each) for each in inner]
    own = (1, len(value) if isinstance(value, dict) else 0, max(0, len(value) - 1))
    return tuple(map(sum, zip(own, *sizes, strict=True)))  # type: ignore[return-value] # three sums


@given(value=_JSON, step_bytes=st.integers(1, 9))
def test_exactly_what_stands_outside_of_strings_is_counted(value: Any, step_bytes: int) -> None:
    body = json.dumps(value).encode()
    before = complexity._STEP_BYTES
    complexity._STEP_BYTES = step_bytes
    try:
        outside = b"".join(complexity.without_strings(body))
    finally:
        complexity._STEP_BYTES = before
    counted = (outside.count(b"{") + outside.count(b"["), outside.count(b":"), outside.count(b","))
    assert counted == _size(value)
