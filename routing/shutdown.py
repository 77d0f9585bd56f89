"""Graceful shutdown on SIGTERM: let calls in flight finish, end the rest with an error, then stop the server.

The server would close its listeners at once and cut streams without running a line of ours. So the signal is handled
here: readiness turns 503 and new calls are refused, calls in flight get the grace period, the rest an error event and
their settlement, and only then is the server told to stop.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable

from codexflow.lib import clock
from routing.tracker import CallTracker

logger = logging.getLogger(__name__)

# How long the calls that were ended may take to settle.
SETTLE_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.05


class ShutdownManager:
    """Handles SIGTERM for the process."""

    def __init__(self, tracker: CallTracker, *, grace_s: float, on_begin: Callable[[], None]) -> None:
        self._tracker = tracker
        self._grace_s = grace_s
        self._on_begin = on_begin
        self._task: asyncio.Task[None] | None = None

    def install(self) -> None:
        """Replace the server's own handler; so call this after the server has installed it."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._begin)

    def _begin(self) -> None:
        if self._task is None:
            self._on_begin()
            self._task = asyncio.get_running_loop().create_task(self._shut_down())

    async def _shut_down(self) -> None:
        logger.info("shutdown.began", extra={"calls": len(self._tracker.calls)})
        await self._until_idle(self._grace_s)
        left = self._tracker.calls
        if left:
            logger.warning("shutdown.cutting", extra={"calls": len(left)})
            for call in left:
                call.shutdown.set()
            await self._until_idle(SETTLE_TIMEOUT_S)
        logger.info("shutdown.ended", extra={"calls": len(self._tracker.calls)})
        os.kill(os.getpid(), signal.SIGINT)

    async def _until_idle(self, timeout_s: float) -> None:
        ends_s = clock.monotonic_s() + timeout_s
        while self._tracker.calls and clock.monotonic_s() < ends_s:  # noqa: ASYNC110 - polled for seconds, once a process
            await asyncio.sleep(POLL_INTERVAL_S)
        # The last calls are settled; give their last bytes a turn of the loop.
        await asyncio.sleep(POLL_INTERVAL_S)
