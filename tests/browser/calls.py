"""Calls to the gateway from browser tests."""

import json
import urllib.request


def call(url: str, key: str, *, model: str = "cfx-plan") -> str:
    """Make one call to the gateway. Returns its request id."""
    body = {"model": model, "messages": [{"role": "user", "content": "Plan a URL shortener"}], "max_tokens": 50}
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own address
        assert json.load(response)["choices"]
        return str(response.headers["X-CFX-Request-Id"])
