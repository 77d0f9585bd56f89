"""Which models serve on a day: successors, ends, and what LiteLLM lists."""

import json
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.catalogue.lineup import Lineup, lineup_of
from codexflow.catalogue.schema import Catalogue, CatalogueError, parse

TODAY = date(2026, 11, 28)
PRICE = {"price": {"input": 1, "output": 2}}


def catalogue(models: dict[str, Any], **changes: Any) -> Catalogue:
    """Stages of `a`, with `b` and `c` behind it; `a` and `c` may be named. `models` replace entries of these."""
    stage = {"model": "a", "max_tokens": 10, "timeout": 1, "fallback": ["b", "c"]}
    content = {
        "stages": {"plan": stage, "code": stage, "review": stage},
        "direct": {"allowed_models": ["a", "c"], "max_tokens_cap": 10},
        "models": {name: {**PRICE, **models.get(name, {})} for name in dict.fromkeys((*"abcxyz", *models))},
        **changes,
    }
    return parse(json.dumps(content), source="test")


def lineup(models: dict[str, Any], today: date = TODAY, listed: str | None = None, **changes: Any) -> Lineup:
    names = None if listed is None else set(listed)
    return lineup_of(catalogue(models, **changes), today, names)


def test_models_without_an_end_serve_themselves() -> None:
    found = lineup({})
    assert found.stages["plan"] == ("a", "b", "c")
    assert {name: found.direct[name] for name in "ac"} == {"a": ("a",), "c": ("c",)}
    assert "b" not in found.direct
    assert not set("abcxyz") & (found.retired | found.exchanged.keys())
    assert not found.unlisted
    assert found.models == set("abc")


@pytest.mark.parametrize(
    ("entry", "first_day"),
    [
        ({"successor": "x", "retires": TODAY.isoformat()}, TODAY + timedelta(days=1)),
        ({"successor": "x", "retires": "2027-01-14", "replaced": TODAY.isoformat()}, TODAY),
        ({"successor": "x"}, date.min),
        ({"successor": "x", "retires": "9999-12-31"}, None),
    ],
)
def test_a_successor_serves_from_its_day_on(entry: dict[str, Any], first_day: date | None) -> None:
    if first_day is None:
        assert lineup({"a": entry}, date.max).stages["plan"][0] == "a"
        return
    if first_day > date.min:
        before = lineup({"a": entry}, first_day - timedelta(days=1))
        assert (before.stages["plan"][0], before.direct["a"], "x" in before.direct) == ("a", ("a",), False)
    after = lineup({"a": entry}, max(first_day, TODAY))
    assert (after.stages["plan"], after.direct["a"]) == (("x", "b", "c"), ("x",))
    assert after.direct["x"] == ("x",), "who may use a model may use the one in its place"


def test_names_that_are_not_allowed_are_served_by_an_allowed_successor() -> None:
    found = lineup({"y": {"successor": "a"}, "z": {"successor": "b"}})
    assert found.direct["y"] == ("a",)
    assert "z" not in found.direct, "its successor may not be named either"


def test_a_chain_names_no_model_twice() -> None:
    assert lineup({"a": {"successor": "c"}}).stages["plan"] == ("c", "b")


def test_successors_are_followed_to_the_one_that_is_not_replaced() -> None:
    models = {"a": {"successor": "x"}, "x": {"successor": "y", "retires": "2026-01-01"}, "y": {"successor": "z"}}
    assert lineup(models).direct["a"] == ("z",)
    assert lineup(models, listed="abcxy").direct["a"] == ("y",), "the last one that LiteLLM has"
    models["y"] = {"successor": "z", "retires": "2027-01-01"}
    assert lineup(models).direct["a"] == ("y",)


def test_without_its_successor_in_litellm_the_model_itself_is_tried() -> None:
    models = {"a": {"successor": "x", "retires": "2026-01-01"}, "y": {"successor": "c"}}
    found = lineup(models, listed="aby")
    assert found.stages["plan"][0] == "a"
    assert (found.direct["a"], found.direct["y"]) == (("a",), ("y",))
    assert found.unlisted == {"a": "x", "y": "c"}
    assert found.models == set("abcy")


def test_retired_models_without_a_successor_are_left_out() -> None:
    over = {"retires": "2026-11-27"}
    found = lineup({"b": over})
    assert found.stages["code"] == ("a", "c")
    found = lineup({"a": over})
    assert (found.stages["code"], found.direct["a"], found.living()) == (("b", "c"), (), ("c",))
    assert lineup({"a": over}, date(2026, 11, 27)).direct["a"] == ("a",), "its last day"
    assert lineup(dict.fromkeys("abc", over)).stages["code"] == ()


def test_a_name_is_retired_when_its_successor_is() -> None:
    found = lineup({"a": {"successor": "x"}, "x": {"retires": "2026-11-01"}})
    assert (found.direct["a"], found.stages["plan"]) == ((), ("b", "c"))
    assert found.end_of("a") == date(2026, 11, 1)


def test_a_retired_direct_model_has_no_fallback() -> None:
    direct = {"allowed_models": ["a"], "max_tokens_cap": 10, "fallback": ["b"]}
    assert lineup({"a": {"retires": "2026-01-01"}}, direct=direct).direct == {"a": ()}


def test_embeddings_have_successors_of_their_own() -> None:
    embeddings = {"allowed_models": ["x"]}
    found = lineup({"x": {"successor": "y"}}, embeddings=embeddings)
    assert (found.own["embeddings"]["x"], found.own["embeddings"]["y"]) == (("y",), ("y",))
    assert not {"x", "y"} & found.direct.keys()


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"replaced": "2026-11-28"}, "needs a successor"),
        ({"replaced": "2026-11-30", "retires": "2026-11-28", "successor": "x"}, "nothing would serve"),
        ({"replaced": "soon", "successor": "x"}, "must be a day"),
    ],
)
def test_a_replacement_has_a_successor_and_leaves_no_gap(entry: dict[str, Any], problem: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        catalogue({"a": entry})
    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]


_days = st.none() | st.integers(-3, 3).map(lambda days: (TODAY + timedelta(days=days)).isoformat())
_entries = st.fixed_dictionaries({"retires": _days, "successor": st.none() | st.sampled_from("abcxyz")})


@given(
    models=st.fixed_dictionaries(dict.fromkeys("abcxyz", _entries)),
    listed=st.none() | st.frozensets(st.sampled_from("abcxyz")),
)
def test_what_serves_is_alive_or_the_model_itself(models: dict[str, Any], listed: frozenset[str] | None) -> None:
    kept = {name: {key: value for key, value in entry.items() if value} for name, entry in models.items()}
    try:
        found = lineup_of(catalogue(kept), TODAY, listed)
    except CatalogueError as exc:
        if all("leads back" in problem for problem in exc.problems):  # a circle of successors
            return
        raise
    for name, entry in found.catalogue.entries.items():
        if name not in models:
            continue
        serving = found.serving(name)
        assert serving == name or listed is None or serving in listed
        assert serving == name or entry.successor is not None
        assert found.serving(serving) == serving, "what serves is not replaced itself"
    for chain in (*found.stages.values(), *found.direct.values()):
        assert len(set(chain)) == len(chain)
        assert found.models.issuperset(chain)
        assert not found.retired & set(chain)
