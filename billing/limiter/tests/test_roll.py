"""When a closed epoch opens."""

from hypothesis import given
from hypothesis import strategies as st

from billing.limiter.roll import GIVE_UP_MS, Entry, Roll, awaited, given_up, may_open, read_roll

BEGAN_MS = 1_790_000_000_000

entries = st.builds(
    Entry,
    heard_ms=st.just(0) | st.integers(BEGAN_MS, BEGAN_MS + 3 * GIVE_UP_MS),
    has_shipped=st.booleans(),
)
rolls = st.builds(
    Roll,
    version=st.integers(0, 50),
    now_ms=st.integers(BEGAN_MS, BEGAN_MS + 3 * GIVE_UP_MS),
    began_ms=st.just(BEGAN_MS),
    processes=st.dictionaries(st.sampled_from([b"a", b"b", b"c", b"d"]), entries),
)


@given(roll=rolls, processes=st.integers(1, 6))
def test_it_never_opens_before_a_living_process_has_shipped(roll: Roll, processes: int) -> None:
    living = [
        entry
        for entry in roll.processes.values()
        if roll.now_ms - max(entry.heard_ms, roll.began_ms) < GIVE_UP_MS and not entry.has_shipped
    ]
    if may_open(roll, processes=processes):
        assert not living
        assert any(entry.has_shipped for entry in roll.processes.values())


@given(roll=rolls, processes=st.integers(1, 6))
def test_it_opens_in_bounded_time_if_one_has_shipped_and_the_others_are_dead(roll: Roll, processes: int) -> None:
    last_ms = max([roll.began_ms, *(entry.heard_ms for entry in roll.processes.values())])
    later = Roll(roll.version, last_ms + GIVE_UP_MS, roll.began_ms, roll.processes)
    has_shipped = any(entry.has_shipped for entry in roll.processes.values())
    assert may_open(later, processes=processes) == has_shipped


@given(roll=rolls)
def test_each_process_that_has_not_shipped_is_either_awaited_or_given_up(roll: Roll) -> None:
    unshipped = {name for name, entry in roll.processes.items() if not entry.has_shipped}
    assert awaited(roll) | given_up(roll) == unshipped
    assert not awaited(roll) & given_up(roll)


def test_configured_processes_are_waited_for_though_nobody_has_named_them() -> None:
    def roll(age_ms: int) -> Roll:
        return Roll(1, BEGAN_MS + age_ms, BEGAN_MS, {b"a": Entry(BEGAN_MS + age_ms, has_shipped=True)})

    assert may_open(roll(0), processes=1)
    assert not may_open(roll(GIVE_UP_MS - 1), processes=2)
    assert may_open(roll(GIVE_UP_MS), processes=2)


def test_the_scripts_reply_is_read() -> None:
    reply: list[int | bytes] = [3, BEGAN_MS + 5, BEGAN_MS, b"a", b"%d:1" % BEGAN_MS, b"b", b"0:0"]
    processes = {b"a": Entry(BEGAN_MS, has_shipped=True), b"b": Entry(0, has_shipped=False)}
    assert read_roll(reply) == Roll(3, BEGAN_MS + 5, BEGAN_MS, processes)
    assert read_roll([]) is None
