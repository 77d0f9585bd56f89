"""Reads that may be seconds old, from a replica of PostgreSQL: lists and sums of usage, exports, statements.

`may_be_old` marks such a function. It runs in one read-only transaction on the replica, under the role of the page that
calls it, and on the primary where there is no replica, or it is away, or behind by more than `CFX_REPLICA_LAG_S`.

How far a replica is behind is measured by positions in the write-ahead log, not by what the replica says of itself: one
that has lost its primary believes that it has everything.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from django.conf import settings
from django.db import DatabaseError, connections, transaction

from codexflow.lib import isolation
from codexflow.lib.clock import monotonic_s

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

REPLICA, PRIMARY = "replica", "default"
CHECK_INTERVAL_S = 1.0
# After a failure nothing is asked of it for so long.
RETRY_AFTER_S = 5.0
_PRIMARY_SQL = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"
_REPLICA_SQL = "SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn"  # NULL: it is no replica
# A log is written in pages: of a transaction that is still open the last record may be there in half, and no replica
# can replay that. A message of nothing, which needs no rights and is no row, completes it.
_COMPLETE_SQL = "SELECT pg_logical_emit_message(false, 'codexflow', '')"
_local = threading.local()


class Lag:
    """Lag of the replica, from positions of both that were read at known times. Pure."""

    def __init__(self) -> None:
        self._positions: deque[tuple[float, int]] = deque(maxlen=600)
        self._has_all_of_s: float | None = None

    def saw(self, now_s: float, primary: int, replica: int) -> None:
        """Take a position of the primary, read at `now_s`, and one of the replica, read later."""
        self._positions.append((now_s, primary))
        reached = [at_s for at_s, position in self._positions if position <= replica]
        if reached:
            self._has_all_of_s = max(reached)
            while self._positions[0][0] < self._has_all_of_s:
                self._positions.popleft()

    def behind_s(self, now_s: float) -> float:
        """Return by how much the replica may be behind at most; infinite while nothing is known."""
        return float("inf") if self._has_all_of_s is None else now_s - self._has_all_of_s


class _Watch:
    """State of the replica as this process knows it."""

    def __init__(self) -> None:
        self.lag = Lag()
        self._lock = threading.Lock()
        self._next_check_s = float("-inf")
        self._was_usable: bool | None = None

    def is_usable(self) -> bool:
        """Return whether the replica is there and near enough. It is asked once a second at most."""
        now_s = monotonic_s()
        with self._lock:
            is_due = now_s >= self._next_check_s
            if is_due:
                self._next_check_s = now_s + CHECK_INTERVAL_S
        if is_due:
            try:
                self._measure(now_s)
            except DatabaseError as exc:
                self.failed(exc)
                return False
        is_usable = self.lag.behind_s(now_s) <= settings.ENV.replica_lag_s
        self._tell(is_usable=is_usable, reason="it is behind")
        return is_usable

    def _measure(self, now_s: float) -> None:
        """Read both positions. Raises DatabaseError."""
        primary = _position(PRIMARY, _PRIMARY_SQL)
        replica = _position(REPLICA, _REPLICA_SQL)
        if primary is None or replica is None:
            return
        with self._lock:
            self.lag.saw(now_s, primary, replica)
            is_behind = self.lag.behind_s(now_s) > settings.ENV.replica_lag_s
        if is_behind:
            with connections[PRIMARY].cursor() as cursor:
                cursor.execute(_COMPLETE_SQL)

    def failed(self, exc: Exception) -> None:
        """Leave the replica alone for a while."""
        with self._lock:
            self.lag = Lag()
            self._next_check_s = monotonic_s() + RETRY_AFTER_S
        connections[REPLICA].close()
        self._tell(is_usable=False, reason=str(exc).partition("\n")[0])

    def _tell(self, *, is_usable: bool, reason: str) -> None:
        if is_usable != self._was_usable:
            self._was_usable = is_usable
            if is_usable:
                logger.info("replica.used")
            else:
                logger.warning("replica.not_used", extra={"reason": reason})


watch = _Watch()


def _position(alias: str, sql: str) -> int | None:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        (position,) = cursor.fetchone()
    return None if position is None else int(position)


def may_be_old(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function that only reads use the replica. It may run twice: what fails there is read from the primary."""

    @wraps(function)
    def read(*args: P.args, **kwargs: P.kwargs) -> T:
        if not settings.HAS_REPLICA or is_reading() or not watch.is_usable():
            return function(*args, **kwargs)
        try:
            with transaction.atomic(using=REPLICA):
                with connections[REPLICA].cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                isolation.take_over(REPLICA)
                _local.is_reading = True
                try:
                    return function(*args, **kwargs)
                finally:
                    _local.is_reading = False
        except DatabaseError as exc:
            # It has died, or its own replay has cancelled the query. A query that is wrong fails again on the primary.
            watch.failed(exc)
            return function(*args, **kwargs)

    return read


def is_reading() -> bool:
    """Return whether this thread is inside of a function that reads from the replica."""
    return getattr(_local, "is_reading", False)


def reading() -> Any:
    """Return the connection for SQL of a function that may be old."""
    return connections[alias()]


def alias() -> str:
    return REPLICA if is_reading() else PRIMARY


class Router:
    """Django's router. Rows that came from the replica are written to, and go on from, the primary."""

    def db_for_read(self, _model: Any, **_hints: Any) -> str:
        return alias()

    def db_for_write(self, _model: Any, **_hints: Any) -> str:
        return PRIMARY

    def allow_relation(self, _one: Any, _other: Any, **_hints: Any) -> bool:
        return True

    def allow_migrate(self, db: str, _app_label: str, **_hints: Any) -> bool:
        return db == PRIMARY
