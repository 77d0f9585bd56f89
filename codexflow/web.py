"""The web program: uvicorn with this project's options, at rest for as long as nothing happens."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn
from typing_extensions import override
from uvicorn.supervisors import Multiprocess

from codexflow.env import Env
from codexflow.lib.ticks import until_tick_s
from codexflow.programs import WEB_STOP_MARGIN_S
from codexflow.settings import ENV

STARTUP_FAILURE = 3  # as uvicorn's own program says it
# uvicorn counts ticks of a tenth of a second, and writes the Date of responses at every tenth of them.
TICKS_PER_S = 10


class Server(uvicorn.Server):
    """uvicorn, which is woken by a signal instead of looking for one ten times a second."""

    # Ends the wait for the next second. Until it serves, there is none.
    _wake: Callable[[], object] = staticmethod(lambda: None)

    @override
    async def main_loop(self) -> None:
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(woken.set)
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += TICKS_PER_S
            timer = loop.call_later(until_tick_s(1.0), woken.set)
            await woken.wait()
            timer.cancel()
            woken.clear()

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._wake()


def config_of(application: str, env: Env) -> uvicorn.Config:
    """Return how an ASGI application is served; `application`: its import name."""
    return uvicorn.Config(
        application,
        host=env.host,
        port=env.port,
        # The protocol uses httptools, which refuses smuggled requests that h11 accepts.
        http="codexflow.server:Protocol",
        loop="uvloop",
        lifespan="on",  # "auto" would hide a failing hook
        # Clients send only small filter messages; per-message compression would keep a window for each connection.
        ws="websockets-sansio",
        ws_max_size=16_384,
        ws_per_message_deflate=False,
        # asgi.py decides which proxies' X-Forwarded-For it trusts, and does so only for requests that carry the header.
        proxy_headers=False,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(env.drain_grace_s) + WEB_STOP_MARGIN_S,
        # Also for one: untold, uvicorn would start WEB_CONCURRENCY processes, which the limiter does not count.
        workers=env.web_processes,
    )


def main(application: str) -> int:
    """Serve until a signal. Returns the exit code."""
    config = config_of(application, ENV)
    if ENV.web_processes > 1:  # of uvicorn's own servers: on a machine for several, their ticks do not count
        Multiprocess(config, sockets=[config.bind_socket()]).run()
        return 0
    server = Server(config)
    with contextlib.suppress(KeyboardInterrupt):  # which it raises again, once all is over
        server.run()
    return 0 if server.started else STARTUP_FAILURE


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
