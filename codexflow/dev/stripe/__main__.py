"""`python -m codexflow.dev.stripe --port 4020 --webhook-url http://…/api/webhooks/stripe`: serve until SIGTERM.

Secrets are read from the environment, where `ps` does not show them: CFX_STRIPE_SECRET_KEY, CFX_STRIPE_WEBHOOK_SECRET.
"""

import argparse
import os
import signal
import sys
from threading import Thread

import httpx

from codexflow.dev.stripe.deliveries import Deliveries, Send
from codexflow.dev.stripe.server import Server
from codexflow.dev.stripe.state import LocalStripe
from codexflow.dev.wsgi import ThreadingServer, listen

DELIVERY_TIMEOUT_S = 10


def serve(server: Server, host: str = "127.0.0.1", port: int = 0) -> ThreadingServer:
    """Listen, and tell the local Stripe where its hosted pages are. The caller runs `serve_forever`."""
    listening = listen(server, host, port)
    server.stripe.base_url = listening.url
    return listening


def by_http(url: str) -> Send:
    """Return a function that posts deliveries to the endpoint."""

    def send(body: bytes, signature: str) -> int:
        headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signature}
        try:
            return httpx.post(url, content=body, headers=headers, timeout=DELIVERY_TIMEOUT_S).status_code
        except httpx.HTTPError:
            return 0

    return send


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m codexflow.dev.stripe", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4020)
    parser.add_argument("--webhook-url", required=True)
    args = parser.parse_args()
    secrets = [os.environ[name] for name in ("CFX_STRIPE_SECRET_KEY", "CFX_STRIPE_WEBHOOK_SECRET")]  # noqa: TID251
    server = Server(LocalStripe(), Deliveries(secrets[1], by_http(args.webhook_url)), secrets[0])
    listening = serve(server, args.host, args.port)
    for name in (signal.SIGTERM, signal.SIGINT):
        # From another thread: `shutdown` waits for the loop that this one runs.
        signal.signal(name, lambda *_: Thread(target=listening.shutdown).start())
    sys.stdout.write(f"Local Stripe listening on {server.stripe.base_url} (demo checkout, no money moves)\n")
    sys.stdout.flush()
    listening.serve_forever()


if __name__ == "__main__":
    main()
