"""Calls to the gateway, beside the browser."""

import json
import urllib.request


def call(url: str, key: str, *, model: str = "cfx-plan") -> str:
    """One request to the gateway; the id it was given."""
    body = {"model": model, "messages": [{"role": "user", "content": "Plan a URL shortener"}], "max_tokens": 50}
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own address
        assert json.load(answer)["choices"]
        return str(answer.headers["X-CFX-Request-Id"])
