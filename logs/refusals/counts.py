"""Counts of refused calls by organization, key, code and minute, and their form in Redis. Pure.

A refused call has no row and costs nothing, so only its number is kept, and one message that a caller was sent: it
names the limit, its value and the wait. Enough to see why an agent fails.
"""

from typing import NamedTuple
from uuid import UUID

# Entries that one process keeps between two flushes. A flood from one key has one entry a minute and code.
MAX_ENTRIES = 10_000
SECONDS_PER_MINUTE = 60
# Messages may quote a name of the caller.
MAX_MESSAGE = 500


class Refused(NamedTuple):
    """What is counted. `minute` counts from 1970."""

    organization_id: UUID
    key_id: UUID
    code: str
    minute: int


class RefusalCounts:
    """Counts of one process since the last `take`."""

    def __init__(self) -> None:
        self._counts: dict[Refused, int] = {}
        self._messages: dict[Refused, str] = {}
        self.left_out = 0  # calls that found no room

    def add(self, organization_id: UUID, key_id: UUID, code: str, message: str, now_s: float) -> None:
        """Count one refused call. Of equal ones since the last `take` the first one's message is kept."""
        entry = Refused(organization_id, key_id, code, int(now_s) // SECONDS_PER_MINUTE)
        known = self._counts.get(entry)
        if known is not None:
            self._counts[entry] = known + 1
        elif len(self._counts) < MAX_ENTRIES:
            self._counts[entry] = 1
            self._messages[entry] = message[:MAX_MESSAGE]
        else:
            self.left_out += 1

    def take(self) -> tuple[dict[Refused, int], dict[Refused, str]]:
        """Return counts and messages, and begin anew."""
        taken = self._counts, self._messages
        self._counts, self._messages = {}, {}
        return taken

    def put_back(self, counts: dict[Refused, int], messages: dict[Refused, str]) -> None:
        """Add counts that could not be flushed. Newer messages stay."""
        for entry, count in counts.items():
            if entry in self._counts or len(self._counts) < MAX_ENTRIES:
                self._counts[entry] = self._counts.get(entry, 0) + count
                self._messages.setdefault(entry, messages.get(entry, ""))
            else:
                self.left_out += count


def field_of(entry: Refused) -> str:
    """The entry as a field of a Redis hash."""
    return f"{entry.organization_id.hex}:{entry.key_id.hex}:{entry.minute}:{entry.code}"


def entry_of(field: str) -> Refused | None:
    """The entry of a field; None for what is none."""
    try:
        organization, key, minute, code = field.split(":")
        return Refused(UUID(organization), UUID(key), code, int(minute))
    except ValueError:
        return None
