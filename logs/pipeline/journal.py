"""Journal: every event is on this machine's disk before its caller sees the end of the response.

Redis may lose the last second of what it acknowledged; the journal may not. Each gateway process appends to segments
of its own. A closed segment is shipped: events that PostgreSQL lacks are settled again, and the segment is deleted
only when PostgreSQL has every one of them. Segments of dead processes are adopted: a lock file shows which processes
are alive.

Calls that are admitted while Redis is away write their intent here as well: if their process dies, nothing else has
it. The last record of a call counts.

A record is `length, CRC-32, payload`. A process killed while writing leaves a torn last record, which is skipped.
"""

import errno
import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from uuid import UUID

from codexflow.lib import clock
from codexflow.lib.ids import random_id

logger = logging.getLogger(__name__)

_HEADER = struct.Struct("<II")
MAX_RECORD_BYTES = 1 << 20
SEGMENT_BYTES = 4 << 20


class Journal:
    """Journal of one process. `append` is a single write(2); `sync` makes it survive a crash of the machine, too."""

    def __init__(self, folder: Path, *, segment_s: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_s = segment_s
        self._name = f"{clock.now_ms():013d}-{random_id().hex[:12]}"
        self._lock = _locked(folder / f"{self._name}.lock")
        self._number = 0
        self._file = -1
        self._size = 0
        self._opened_s = 0.0
        self.is_dirty = False
        # Called by the first append after a sync.
        self.when_dirty: Callable[[], None] = lambda: None
        self._open_segment()

    @property
    def name(self) -> str:
        """Name of the process among all that have a journal: its segments and its lock begin with it."""
        return self._name

    @property
    def has_records(self) -> bool:
        """True once the segment has records: it is closed when it is old enough."""
        return self._size > 0

    def _open_segment(self) -> None:
        self._number += 1
        path = self._folder / f"{self._name}-{self._number:06d}.open"
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        self._path = path
        self._size = 0
        self._opened_s = clock.monotonic_s()

    def append(self, payload: bytes) -> None:
        """Write one event. Raises OSError when the disk is full, or when the record is larger than readers accept."""
        if len(payload) > MAX_RECORD_BYTES:
            raise OSError(errno.EFBIG, "The record would hide everything after it from the reader")
        record = _HEADER.pack(len(payload), zlib.crc32(payload)) + payload
        written = os.write(self._file, record)
        if written != len(record):
            # Half a record would hide everything after it from the reader.
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, "The journal took only a part of the record")
        self._size += len(record)
        if not self.is_dirty:
            self.is_dirty = True
            self.when_dirty()

    def sync(self) -> None:
        """fsync the appended records."""
        if self.is_dirty:
            self.is_dirty = False
            os.fdatasync(self._file)

    def rotate(self) -> Callable[[], None] | None:
        """Begin a new segment once this one is old or large enough.

        Returns the slow part, which closes the old segment for shipping: run it on the thread that syncs.
        """
        is_due = clock.monotonic_s() - self._opened_s >= self._segment_s or self._size >= SEGMENT_BYTES
        if not (self._size and is_due):
            return None
        old_file, old_path = self._file, self._path
        self._open_segment()
        return lambda: _close_segment(old_file, old_path)

    def close(self) -> None:
        """Close the journal at the end of the process, so that any other process may ship it."""
        if self._size:
            _close_segment(self._file, self._path)
        else:
            os.close(self._file)
            self._path.unlink(missing_ok=True)
        os.close(self._lock)
        (self._folder / f"{self._name}.lock").unlink(missing_ok=True)


def _close_segment(file: int, path: Path) -> None:
    os.fdatasync(file)
    os.close(file)
    path.rename(path.with_suffix(".closed"))


def _locked(path: Path) -> int:
    """Create and lock a file. Retries when a sibling, looking for orphans, removes it before it is locked."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
        os.close(descriptor)


def read_segment(path: Path) -> Iterator[bytes]:
    """Payloads of a segment, up to the first torn or damaged record."""
    content = path.read_bytes()
    at = 0
    while at + _HEADER.size <= len(content):
        length, checksum = _HEADER.unpack_from(content, at)
        at += _HEADER.size
        payload = content[at : at + length]
        if length > MAX_RECORD_BYTES or len(payload) < length or zlib.crc32(payload) != checksum:
            # The only writer died here; no record can follow.
            logger.warning("journal.torn_record", extra={"segment": path.name, "at": at})
            return
        at += length
        yield payload


def adopt_orphans(folder: Path) -> int:
    """Close the segments of dead processes. Returns how many."""
    adopted = 0
    for segment in sorted(folder.glob("*.open")):
        if is_owner_alive(segment):
            continue
        try:
            segment.rename(segment.with_suffix(".closed"))
        except FileNotFoundError:
            continue  # a sibling adopted it
        adopted += 1
    for lock_path in folder.glob("*.lock"):
        if not any(folder.glob(f"{lock_path.stem}-*")) and not _is_locked(lock_path):
            lock_path.unlink(missing_ok=True)
    return adopted


def is_owner_alive(segment: Path) -> bool:
    """Return whether the process that wrote the segment is alive."""
    return _is_locked(_lock_of(segment))


def _lock_of(segment: Path) -> Path:
    return segment.parent / f"{segment.name.rsplit('-', 1)[0]}.lock"


def _is_locked(lock_path: Path) -> bool:
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def closed_segments(folder: Path) -> list[Path]:
    """Segments waiting to be shipped, oldest first."""
    return sorted(folder.glob("*.closed"))


def segments(folder: Path) -> list[Path]:
    """All segments, oldest first."""
    return sorted((*folder.glob("*.open"), *folder.glob("*.closed")))


def payloads_of(path: Path, id_of: Callable[[bytes], UUID]) -> dict[UUID, bytes]:
    """Read the last payload of each call in a segment, which may be closed meanwhile; none if it has been shipped.

    Raises ValueError when a payload cannot be read.
    """
    for each in (path, path.with_suffix(".closed")):
        try:
            return {id_of(payload): payload for payload in read_segment(each)}
        except FileNotFoundError:
            continue
    return {}


def ship_segment(
    path: Path,
    *,
    id_of: Callable[[bytes], UUID],
    missing: Callable[[Mapping[UUID, bytes]], set[UUID]],
    settle: Callable[[bytes], object],
) -> bool:
    """Settle again what PostgreSQL lacks; delete the segment when it lacks nothing. Returns whether it is done.

    `missing` and `settle` raise what their services raise; the segment then stays and is retried.
    """
    try:
        payloads = {id_of(payload): payload for payload in read_segment(path)}
    except FileNotFoundError:
        return True  # a sibling was faster
    except ValueError:
        logger.exception("journal.unreadable_segment", extra={"segment": path.name})
        path.rename(path.with_suffix(".bad"))  # kept for the operator
        return True
    lacking = missing(payloads)
    unreadable = {each for each in lacking if not _is_settled(settle, payloads[each])}
    if lacking - unreadable:
        return False
    if unreadable:
        # All other events have arrived; left in place, the segment would block those behind it.
        logger.error("journal.unreadable_segment", extra={"segment": path.name, "ids": [*map(str, unreadable)]})
        path.rename(path.with_suffix(".bad"))
        return True
    path.unlink(missing_ok=True)
    return True


def _is_settled(settle: Callable[[bytes], object], payload: bytes) -> bool:
    """Settle a payload. False when it cannot be read."""
    try:
        settle(payload)
    except ValueError:
        return False
    return True
