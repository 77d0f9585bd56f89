"""/metrics on a running gateway."""

import httpx

from tests.support.installation import Installation

TOKEN = "a-token-of-some-length"


def test_metrics_require_the_token(installation: Installation) -> None:
    gateway = installation.new_gateway(CFX_METRICS_TOKEN=TOKEN)
    try:
        response = httpx.get(f"{gateway.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
        assert response.status_code == 200
        for name in ("postgres_up 1.0", "redis_up 1.0", 'journal_segments{state="open"}'):
            assert f"\ncodexflow_{name}" in response.text
        assert httpx.get(f"{gateway.url}/metrics", timeout=60).status_code == 404
    finally:
        gateway.stop()
    # The other gateway has no token set.
    refused = httpx.get(f"{installation.gateway.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
    assert refused.status_code == 404
