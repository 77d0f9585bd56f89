"""The meter that is nearest its end, and those to warn of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.alerts import CREDIT, DAY, MONTH
from billing.meters import KEY, ORGANIZATION, REQUESTS, TAG, Meter, nearest, warned


def meter(kind: str, used: int, limit: int, owner: str = ORGANIZATION, name: str = "", *, stops: bool = True) -> Meter:
    return Meter(kind=kind, used=used, limit=limit, owner=owner, name=name, owner_id=name, stops=stops)


meters = st.builds(
    meter,
    st.sampled_from([CREDIT, DAY, MONTH, REQUESTS]),
    st.integers(-5, 10**12),
    st.integers(0, 10**12),
    st.sampled_from([ORGANIZATION, KEY, TAG]),
    st.sampled_from("abc"),
    stops=st.booleans(),
)


@given(found=st.lists(meters))
def test_nothing_that_stops_calls_is_nearer_than_the_nearest(found: list[Meter]) -> None:
    chosen = nearest(found)
    stopping = [each for each in found if each.stops]
    assert (chosen is None) == (not stopping)
    if chosen is not None:
        assert chosen.is_used_up or all(each.part <= chosen.part for each in stopping)


@given(found=st.lists(meters))
def test_everything_near_its_end_is_warned_of_or_counted(found: list[Meter]) -> None:
    shown = warned(found)
    near = [each for each in found if each.percent >= 80]
    assert all(each.percent >= 80 for each, _more in shown)
    own = [each for each in near if each.owner == ORGANIZATION]
    assert sorted(id(each) for each, _more in shown if each.owner == ORGANIZATION) == sorted(map(id, own))
    for owner in (KEY, TAG):
        ids = {each.owner_id for each in near if each.owner == owner}
        named = [(each, more) for each, more in shown if each.owner == owner]
        assert len(ids) == sum(1 + more for _each, more in named)


@given(found=st.lists(meters, min_size=1))
def test_a_hundred_percent_is_said_only_when_nothing_is_left(found: list[Meter]) -> None:
    for each in found:
        assert (each.percent >= 100) == each.is_used_up
        assert each.is_used_up == (each.limit == 0 or each.used >= each.limit)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ([meter(REQUESTS, 8, 10_000), meter(CREDIT, 96, 100)], CREDIT),
        ([meter(REQUESTS, 99, 100), meter(CREDIT, 96, 100)], REQUESTS),
        # Used up is used up, however much beyond: the credit lasts longest.
        ([meter(REQUESTS, 300, 100), meter(CREDIT, 100, 100), meter(DAY, 5, 1)], CREDIT),
        # What concerns the whole organization comes before a key.
        ([meter(DAY, 1, 1, KEY, "a"), meter(MONTH, 1, 1)], MONTH),
        # A budget of nothing allows nothing.
        ([meter(DAY, 0, 0), meter(MONTH, 99, 100)], DAY),
        # A soft budget stops nothing.
        ([meter(DAY, 9, 1, TAG, "a", stops=False), meter(REQUESTS, 1, 100)], REQUESTS),
    ],
)
def test_the_nearest_is_what_stops_calls_first(found: list[Meter], kind: str) -> None:
    chosen = nearest(found)
    assert chosen is not None
    assert chosen.kind == kind


def test_one_key_stands_for_all_that_are_near() -> None:
    found = [meter(DAY, used, 100, KEY, name) for used, name in ((85, "a"), (99, "b"), (90, "c"), (10, "d"))]
    ((named, more),) = warned([*found, meter(MONTH, 95, 100, KEY, "b")])
    assert (named.name, more) == ("b", 2)
