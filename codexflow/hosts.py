"""Names of one installation that serve only a part of it: API_HOST the API, APP_HOST the pages. Pure.

Both are optional, and without them every name serves everything. Names inside the deployment (`web:8000`, `127.0.0.1`)
belong to neither: LiteLLM reports to them, and probes and metrics ask there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Paths that callers and machines use. Payment notices and LiteLLM's reports are below /api/.
API_PATHS = ("/v1/", "/v2/rerank", "/chat/completions", "/health", "/api/")
METRICS = "/metrics"


@dataclass(frozen=True, slots=True)
class Hosts:
    """The two names, in lower case and without a port; empty where there is none."""

    api: str
    app: str

    def serve(self, headers: Sequence[tuple[bytes, bytes]], method: str, path: str) -> bool:
        """Return whether the host that a request names serves this path."""
        host = host_of(headers)
        if path.startswith(API_PATHS) or (method == "HEAD" and path == "/"):
            return True
        if self.app and host == self.app:
            return True
        if host == self.api:
            return False
        return not self.app or path == METRICS


def host_of(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """Return the host of a request without its port, in lower case; empty without a Host header."""
    given = next((value for name, value in headers if name == b"host"), b"").decode("latin-1").strip().lower()
    name, _, port = given.rpartition(":")
    return (name if name and port.isdecimal() else given).rstrip(".")
