"""Relay between Playwright and a Firefox that does not know every command of WebDriver BiDi that Playwright sends.

    python bidi.py FIREFOX ARGUMENTS...

Runs Firefox, and announces the relay's address in place of the browser's. Stands alone: Playwright starts it.
"""

import asyncio
import json
import re
import signal
import sys
from collections.abc import Sequence

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

LOOPBACK = "127.0.0.1"
# Firefox 153 refuses the command, and Playwright then every window. Pages have their theme from a cookie.
WITHOUT_EFFECT = "emulation.setMediaFeaturesOverride"
_ADDRESS = re.compile(r"WebDriver BiDi listening on (ws://\S+)")


async def relay(client: ServerConnection, browser_url: str) -> None:
    """Pass messages on until either side ends."""
    async with connect(f"{browser_url}/session", max_size=None, ping_interval=None) as browser:

        async def responses() -> None:
            async for message in browser:
                await client.send(message)
            await client.close()

        returning = asyncio.create_task(responses())
        async for message in client:
            command = json.loads(message)
            if command["method"] == WITHOUT_EFFECT:
                await client.send(json.dumps({"type": "success", "id": command["id"], "result": {}}))
            else:
                await browser.send(message)
        returning.cancel()


async def run(argv: Sequence[str]) -> int:
    """Run Firefox with a relay in front of it. Returns its exit code."""
    firefox = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, firefox.terminate)
    browser_url = ""

    async def on_client(client: ServerConnection) -> None:
        await relay(client, browser_url)

    async with serve(on_client, LOOPBACK, 0, max_size=None, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        assert firefox.stderr is not None
        async for raw in firefox.stderr:
            line = raw.decode(errors="replace")
            if found := _ADDRESS.search(line):
                browser_url = found[1]
                line = line.replace(browser_url, f"ws://{LOOPBACK}:{port}")
            sys.stderr.write(line)
            sys.stderr.flush()
        return await firefox.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(run(sys.argv[1:])))
