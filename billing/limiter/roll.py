"""Roll of a closed epoch: decides when a Redis that was emptied may be counted from again. Pure.

Calls that were not in PostgreSQL when Redis lost them are in the journals of the gateway processes. A process has
shipped when every event of its journal is in PostgreSQL or in Redis's stream again, and its calls in flight have their
intents again. The epoch opens when all have; one that is not heard of is given up after a while, because a dead
process cannot ship: the next process on its disk does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

GIVE_UP_MS = 10_000


class Entry(NamedTuple):
    """A process on the roll. `heard_ms` is 0 when only others have named it."""

    heard_ms: int
    has_shipped: bool


@dataclass(frozen=True, slots=True)
class Roll:
    """Roll of one shard, in Redis's time. `version` changes with every entry that appears or ships."""

    version: int
    now_ms: int
    began_ms: int
    processes: Mapping[bytes, Entry]


def read_roll(reply: Sequence[int | bytes]) -> Roll | None:
    """Read the reply of roll.lua; None when the epoch is open, or another one."""
    if not reply:
        return None
    version, now_ms, began_ms = (int(each) for each in reply[:3])
    processes = {}
    for name, entry in zip(reply[3::2], reply[4::2], strict=True):
        heard_ms, _, shipped = bytes(entry).partition(b":")
        processes[bytes(name)] = Entry(int(heard_ms), shipped == b"1")
    return Roll(version, now_ms, began_ms, processes)


def awaited(roll: Roll) -> set[bytes]:
    """Name the processes that must ship before the epoch opens: all that have not and may still."""
    return {name for name, entry in roll.processes.items() if not entry.has_shipped and not _is_given_up(roll, entry)}


def given_up(roll: Roll) -> set[bytes]:
    """Name the processes that have not shipped and never will, as far as anybody can tell."""
    return {name for name, entry in roll.processes.items() if not entry.has_shipped and _is_given_up(roll, entry)}


def may_open(roll: Roll, *, processes: int) -> bool:
    """Return whether the epoch may open. `processes`: how many are configured, all of which are waited for at first."""
    shipped = sum(entry.has_shipped for entry in roll.processes.values())
    if not shipped or awaited(roll):
        return False
    return shipped >= processes or roll.now_ms - roll.began_ms >= GIVE_UP_MS


def _is_given_up(roll: Roll, entry: Entry) -> bool:
    return roll.now_ms - max(entry.heard_ms, roll.began_ms) >= GIVE_UP_MS
