"""Calls to the gateway from browser tests."""

import httpx

from tests.support.waiting import until


def call(url: str, key: str, *, model: str = "cfx-plan") -> str:
    """Make one call to the gateway, and wait until pages know it. Returns its request id."""
    body = {"model": model, "messages": [{"role": "user", "content": "Plan a URL shortener"}], "max_tokens": 50}
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
        response = client.post("/v1/chat/completions", json=body)
        assert response.json()["choices"]
        request_id = response.headers["x-cfx-request-id"]
        until(lambda: client.get(f"/api/v1/requests/{request_id}").status_code == 200, what="the call's row")
    return request_id
