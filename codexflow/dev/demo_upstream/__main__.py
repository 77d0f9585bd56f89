"""`python -m codexflow.dev.demo_upstream --port 4010`: serve until SIGTERM."""

import argparse
import asyncio
import signal
import sys

import uvloop

from codexflow.dev.demo_upstream.models import EXAMPLES, MODELS, unpriced
from codexflow.dev.demo_upstream.server import DemoUpstream, Options


async def serve(host: str, port: int, options: Options) -> None:
    """Serve until SIGTERM or SIGINT, then close all connections at once."""
    upstream = DemoUpstream(options)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(upstream.connection, host, port, backlog=1024)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    address = server.sockets[0].getsockname()
    sys.stdout.write(f"Demo upstream listening on http://{host}:{address[1]} (canned answers, no model is asked)\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()
    for connection in tuple(upstream.connections):
        connection.transport.abort()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m codexflow.dev.demo_upstream", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4010, help="0 takes a free one and prints it")
    parser.add_argument("--api-key", default="", help="the only key accepted; by default none is required")
    parser.add_argument("--gap-ms", type=int, default=15, help="pause between the events of a stream")
    parser.add_argument("--record-bodies", action="store_true", help="keep whole request bodies in the ledger")
    parser.add_argument("--as-provider", action="store_true", help="speak as a provider behind LiteLLM, not as LiteLLM")
    parser.add_argument(
        "--counts-tokens",
        nargs="?",
        const="estimate",
        default="",
        choices=("estimate", "provider"),
        help="serve /v1/messages/count_tokens, as LiteLLM 1.106, and count as LiteLLM itself or as the provider does",
    )
    parser.add_argument(
        "--models", default="", help="names of the only models it has, with commas; unknown ones are free"
    )
    args = parser.parse_args()
    known = {**MODELS, **EXAMPLES}
    options = Options(
        api_key=args.api_key,
        role="provider" if args.as_provider else "proxy",
        records_bodies=args.record_bodies,
        gap_ms=args.gap_ms,
        counts_tokens=args.counts_tokens,
        models={name: known.get(name) or unpriced(name) for name in args.models.split(",") if name} or known,
    )
    uvloop.run(serve(args.host, args.port, options))


if __name__ == "__main__":
    main()
