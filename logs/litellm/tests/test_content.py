"""Prompts and answers in LiteLLM's reports: whose of them go on to the worker."""

from typing import Any

import pytest

from accounts.services import set_content_retention
from codexflow.lib import clock
from codexflow.lib.ids import random_id
from keys.services import IssuedKey
from keys.tests.factories import a_key
from logs.content.codec import decode, text_of
from logs.litellm import content
from logs.litellm.mapping import told_of
from logs.litellm.tests.factories import a_payload

SALTS = ("x" * 32,)


def a_call_of(key: IssuedKey, prompt: str) -> dict[str, Any]:
    """A call past the gateway, made with a key of LiteLLM's own that belongs to this key's organization."""
    key.row.litellm_key_id = random_id().hex
    key.row.save()
    messages = [{"role": "user", "content": prompt}]
    return a_payload(f"call-{random_id().hex}", key_hash=key.row.litellm_key_id, messages=messages)


@pytest.mark.django_db
def test_only_what_its_organization_wants_kept_goes_on() -> None:
    wanting, other = a_key(), a_key()
    set_content_retention(wanting.row.organization, days=7)
    rows = [a_call_of(other, "not this"), a_call_of(wanting, "but this"), a_payload("call-of-nobody")]
    told = told_of(rows, source="webhook", now_ms=clock.now_ms(), delivery="x", salts=SALTS)
    assert len(told) == 3
    (found,) = [decode(payload) for payload in content.wanted(told)]
    assert found.organization_id == wanting.row.organization_id
    assert "but this" in text_of(found.request.packed)
