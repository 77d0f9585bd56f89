"""Search terms: text to values and back, and what they mean."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.lib.ids import new_id
from logs.requests.conditions import FIELDS, MAX_MS, MAX_NANOS, Condition, Names, conditions_of
from logs.requests.terms import MAX_TERMS, BadSearch, Term, parse, text_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = texts | st.sampled_from(["a,b", 'say "hi"', "back\\slash", "-x", "status:500", "…1f", " "])
named = st.builds(
    Term,
    st.sampled_from([*FIELDS, "other_field"]),
    st.lists(values, min_size=1, max_size=4, unique=True).map(tuple),
    st.booleans(),
)
free = st.builds(Term, st.just(""), values.map(lambda value: (value,)), st.booleans())
NAMES = Names.of([("k1", "Laptop"), ("k2", "laptop"), ("k3", "ci")], [("7", "ada@example.org"), ("7", "Ada L")])


def met(text: str) -> tuple[Condition, ...]:
    return conditions_of(parse(text), lambda: NAMES)


@given(st.lists(named | free, max_size=MAX_TERMS).map(tuple))
def test_a_search_survives_its_text(terms: tuple[Term, ...]) -> None:
    assert parse(text_of(terms)) == terms


@given(st.text(st.sampled_from(list('ab:,-"\\ \t\n…')), max_size=30) | st.text(max_size=30))
def test_whatever_is_typed_is_read_or_refused_and_reads_the_same_once_written(text: str) -> None:
    try:
        terms = parse(text)
    except BadSearch:
        return
    assert parse(text_of(terms)) == terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:a,b", (Condition("model", ("a", "b")),)),
        ("model:a model:b", (Condition("model", ("a", "b")),)),
        ("-model:a,b", (Condition("model", ("a", "b"), is_excluded=True),)),
        ('tag:"team a"', (Condition("tag", ("team a",)),)),
        ("tag:team=a", (Condition("tag", ("team=a",)),)),
        ("Status:ok", (Condition("status", ranges=((-(2**15) + 1, 399),)),)),
        ("status:500,4xx", (Condition("status", ranges=((500, 500), (400, 499))),)),
        ("status:>=500", (Condition("status", ranges=((500, 2**15 - 1),)),)),
        ("cost:>0.01", (Condition("cost_nanos", ranges=((10_000_001, MAX_NANOS),)),)),
        ("cost:<$1", (Condition("cost_nanos", ranges=((0, 999_999_999),)),)),
        ("cost:0.01..0.5", (Condition("cost_nanos", ranges=((10_000_000, 500_000_000),)),)),
        ("latency:>5s", (Condition("latency_ms", ranges=((5_001, MAX_MS),)),)),
        ("latency:<=1.5s", (Condition("latency_ms", ranges=((0, 1_500),)),)),
        ("latency:>0.5ms", (Condition("latency_ms", ranges=((1, MAX_MS),)),)),
        ("latency:1m", (Condition("latency_ms", ranges=((60_000, 60_000),)),)),
        ("key:LAPTOP,ci", (Condition("key_id", ("k1", "k2", "k3")),)),
        ('member:"ada l"', (Condition("user_id", ("7",)),)),
        ("client:claude-code", (Condition("user_agent", ("claude-cli",), is_part=True),)),
        ("stream:no", (Condition("is_stream", ("false",)),)),
        ("planned:no", (Condition("planner", ("planned",), is_excluded=True),)),
        ("…0198F2-c1", (Condition("request_id", ("0198f2c1",), is_part=True),)),
        ("facade", (Condition("word", ("facade",), is_part=True),)),
        ("luna", (Condition("word", ("luna",), is_part=True),)),
        ("", ()),
    ],
)
def test_terms_are_conditions(text: str, expected: tuple[Condition, ...]) -> None:
    assert met(text) == expected


def test_two_bounds_of_a_number_are_a_range() -> None:
    low, high = met("cost:>0.01 cost:<1")
    row = {"cost": {"nanos": 20_000_000}}
    assert low.matches(row)
    assert high.matches(row)
    assert not low.matches({"cost": {"nanos": 10_000_000}})


@pytest.mark.parametrize(
    ("text", "kind", "field"),
    [
        ("modle:gpt", "unknown_field", "modle"),
        ("status:5000", "bad_value", "status"),
        ("status:teapot", "bad_value", "status"),
        ("cost:cheap", "bad_value", "cost"),
        ("cost:>-1", "bad_value", "cost"),
        ("cost:1e999999", "bad_value", "cost"),
        ("latency:>5h", "bad_value", "latency"),
        ("latency:..", "bad_value", "latency"),
        ("stream:maybe", "bad_value", "stream"),
        ("planned:yes,no", "bad_value", "planned"),
        ("id:xyz", "bad_value", "id"),
        ("key:unknown", "unknown_name", "key"),
        ("member:ben", "unknown_name", "member"),
        ("model:", "no_value", "model"),
        ("model:,", "no_value", "model"),
        ('model:""', "no_value", "model"),
        ('tag:"open', "unclosed", ""),
        (" ".join(["a"] * (MAX_TERMS + 1)), "too_many", ""),
    ],
)
def test_a_bad_search_names_what_is_wrong(text: str, kind: str, field: str) -> None:
    with pytest.raises(BadSearch) as caught:
        met(text)
    assert (caught.value.kind, caught.value.field) == (kind, field)


def test_names_are_looked_up_only_where_a_search_has_any() -> None:
    def names() -> Any:
        raise AssertionError

    assert conditions_of(parse(f"model:a key:{new_id()} member:7"), names)
