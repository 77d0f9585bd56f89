"""`python -m codexflow.dev.iyzico --port 4030`: serve until SIGTERM.

Keys are read from the environment, where `ps` does not show them: CFX_IYZICO_API_KEY, CFX_IYZICO_SECRET_KEY.
"""

import argparse
import os
import signal
import sys
from threading import Thread

from codexflow.dev.iyzico.server import Server
from codexflow.dev.iyzico.state import LocalIyzico
from codexflow.dev.wsgi import ThreadingServer, listen


def serve(server: Server, host: str = "127.0.0.1", port: int = 0) -> ThreadingServer:
    """Listen, and tell the local iyzico where its hosted forms are. The caller runs `serve_forever`."""
    listening = listen(server, host, port)
    server.iyzico.base_url = listening.url
    return listening


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m codexflow.dev.iyzico", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4030)
    args = parser.parse_args()
    api_key, secret_key = (os.environ[f"CFX_IYZICO_{name}_KEY"] for name in ("API", "SECRET"))  # noqa: TID251
    server = Server(LocalIyzico(), api_key, secret_key)
    listening = serve(server, args.host, args.port)
    for name in (signal.SIGTERM, signal.SIGINT):
        # From another thread: `shutdown` waits for the loop that this one runs.
        signal.signal(name, lambda *_: Thread(target=listening.shutdown).start())
    sys.stdout.write(f"Local iyzico listening on {server.iyzico.base_url} (demo checkout, no money moves)\n")
    sys.stdout.flush()
    listening.serve_forever()


if __name__ == "__main__":
    main()
