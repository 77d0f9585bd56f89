"""Room for bodies that are being received."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.lib.memory import LEAST_ROOM_BYTES, MOST_ROOM_BYTES, available_bytes, room_for_bodies
from codexflow.lib.reception import Place, Reception, ReceptionFull, SenderFull


def test_a_sender_has_a_quarter_of_the_room() -> None:
    reception = Reception(400, largest_bytes=10)
    Place(reception, "ada").hold(100)
    with pytest.raises(SenderFull):
        Place(reception, "ada").hold(1)
    for sender in ("ben", "eve", "dan"):
        Place(reception, sender).hold(100)
    with pytest.raises(ReceptionFull):
        Place(reception, "fay").hold(1)


def test_the_largest_body_has_room_for_itself() -> None:
    place = Place(Reception(10, largest_bytes=50), "ada")
    place.hold(50)
    with pytest.raises(SenderFull):
        place.hold(51)


@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["ada", "ben"]), st.integers(0, 60))),
    room_bytes=st.integers(1, 100),
)
def test_room_is_never_exceeded_and_all_of_it_comes_back(steps: list[tuple[int, str, int]], room_bytes: int) -> None:
    reception = Reception(room_bytes, largest_bytes=30)
    places: dict[tuple[int, str], Place] = {}
    for number, sender, size_bytes in steps:
        place = places.setdefault((number, sender), Place(reception, sender))
        before = place.size_bytes
        try:
            place.hold(size_bytes)
        except (SenderFull, ReceptionFull):
            assert place.size_bytes == before
            assert size_bytes > before
        held = sum(each.size_bytes for each in places.values())
        assert reception.taken_bytes == held <= max(room_bytes, 30)
        for each in ("ada", "ben"):
            own = sum(place.size_bytes for (_, whose), place in places.items() if whose == each)
            assert own <= max(30, room_bytes // 4)
    for place in places.values():
        place.give_back()
        place.give_back()
    assert reception.taken_bytes == 0
    assert not reception._by_sender


def test_the_room_follows_the_memory_unless_it_is_set() -> None:
    assert room_for_bodies(5, 2) == 5
    assert available_bytes() > 0
    assert LEAST_ROOM_BYTES <= room_for_bodies(0, 1) <= MOST_ROOM_BYTES
    assert room_for_bodies(0, 10_000) == LEAST_ROOM_BYTES
