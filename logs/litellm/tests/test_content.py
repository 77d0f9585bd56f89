"""Content of LiteLLM's reports: only of organizations that store it."""

from typing import Any

import pytest

from accounts.services import set_content_retention
from codexflow.lib import clock
from codexflow.lib.ids import random_id
from keys.services import IssuedKey
from keys.tests.factories import a_key
from logs.content.codec import decode, text_of
from logs.litellm import content
from logs.litellm.mapping import map_rows
from logs.litellm.tests.factories import a_payload

SALTS = ("x" * 32,)


def a_call_of(key: IssuedKey, prompt: str) -> dict[str, Any]:
    """A call past the gateway, made with a key of LiteLLM's own that belongs to this key's organization."""
    key.row.litellm_key_id = random_id().hex
    key.row.save()
    messages = [{"role": "user", "content": prompt}]
    return a_payload(f"call-{random_id().hex}", key_hash=key.row.litellm_key_id, messages=messages)


@pytest.mark.django_db
def test_only_content_of_organizations_that_store_it_is_published() -> None:
    storing, other = a_key(), a_key()
    set_content_retention(storing.row.organization, days=7)
    rows = [a_call_of(other, "not this"), a_call_of(storing, "but this"), a_payload("call-of-nobody")]
    reports = map_rows(rows, source="webhook", now_ms=clock.now_ms(), delivery="x", salts=SALTS)
    assert len(reports) == 3
    (stored,) = [decode(payload) for payload in content.payloads_of(reports)]
    assert stored.organization_id == storing.row.organization_id
    assert "but this" in text_of(stored.request.packed)
