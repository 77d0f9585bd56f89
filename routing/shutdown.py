"""SIGTERM: let running calls finish, then go.

The server would close its listeners at once and cut streams without running a line of ours. So the signal is taken
here: readiness turns 503 and new calls are refused, running ones get the grace, the rest an error event and their
settlement, and only then does the server hear that it should stop.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable

from codexflow.lib import clock
from routing.call import FrontDesk

logger = logging.getLogger(__name__)

# What settling the last calls may take once their streams have been ended.
LAST_WORDS_S = 5.0
LOOK_S = 0.05


class DrainManager:
    """Takes SIGTERM for the process."""

    def __init__(self, desk: FrontDesk, *, grace_s: float, when_draining: Callable[[], None]) -> None:
        self._desk = desk
        self._grace_s = grace_s
        self._when_draining = when_draining
        self._task: asyncio.Task[None] | None = None

    def install(self) -> None:
        """After the server has installed its own handlers: the later one counts."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._begin)

    def _begin(self) -> None:
        if self._task is None:
            self._when_draining()
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        logger.info("drain.began", extra={"calls": len(self._desk.live)})
        await self._until_empty(self._grace_s)
        left = self._desk.live
        if left:
            logger.warning("drain.cutting", extra={"calls": len(left)})
            for call in left:
                if call.on_shutdown is not None:
                    call.on_shutdown()
            await self._until_empty(LAST_WORDS_S)
        logger.info("drain.ended", extra={"calls": len(self._desk.live)})
        os.kill(os.getpid(), signal.SIGINT)

    async def _until_empty(self, within_s: float) -> None:
        ends_s = clock.monotonic_s() + within_s
        while self._desk.live and clock.monotonic_s() < ends_s:  # noqa: ASYNC110 - looked at for seconds, once a life
            await asyncio.sleep(LOOK_S)
        # The last answers are settled; give their last bytes a turn of the loop.
        await asyncio.sleep(LOOK_S)
