"""/metrics on a running gateway."""

import httpx

from tests.support.installation import Installation

TOKEN = "a-token-of-some-length"


def test_a_gateway_tells_its_metrics_to_whoever_has_the_token(installation: Installation) -> None:
    gateway = installation.new_gateway(CFX_METRICS_TOKEN=TOKEN)
    try:
        answer = httpx.get(f"{gateway.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)
        assert answer.status_code == 200
        for name in ("postgres_up 1.0", "redis_up 1.0", 'journal_segments{state="open"}'):
            assert f"\ncodexflow_{name}" in answer.text
        assert httpx.get(f"{gateway.url}/metrics", timeout=10).status_code == 404
    finally:
        gateway.stop()
    # The other one was given no token.
    told = httpx.get(f"{installation.gateway.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10)
    assert told.status_code == 404
