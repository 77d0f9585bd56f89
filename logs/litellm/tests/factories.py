"""Reports as LiteLLM's callback and its spend logs write them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codexflow.lib import clock
from codexflow.lib.ids import new_id, random_id
from keys.models import ApiKey
from keys.tests.factories import a_key
from logs.litellm.mapping import MASTER_KEY, reports_of
from logs.litellm.report import Report

CAPTURED = {path.stem: json.loads(path.read_text()) for path in Path(__file__).parent.glob("payloads/*.json")}
SALTS = ("s" * 40, "t" * 40)


def mapped(*rows: Any, source: Any = "webhook", now_ms: int | None = None, delivery: str = "") -> tuple[Report, ...]:
    return reports_of(
        rows, source=source, now_ms=now_ms or clock.now_ms(), delivery=delivery or str(new_id()), salts=SALTS
    )


def a_mapped_key(name: str = "") -> ApiKey:
    """A key of ours that LiteLLM knows by `name`."""
    row = a_key().row
    row.litellm_key_id = name or random_id().hex
    row.save(update_fields=["litellm_key_id"])
    return row


def a_payload(call_id: str, **fields: Any) -> dict[str, Any]:
    """A StandardLoggingPayload of a call by the gateway."""
    started_s = fields.pop("started_s", clock.now_s())
    key_hash = fields.pop("key_hash", MASTER_KEY)
    prompt, completion = fields.pop("prompt_tokens", 120), fields.pop("completion_tokens", 60)
    return {
        "id": f"chatcmpl-{call_id}",
        "litellm_call_id": call_id,
        "call_type": "acompletion",
        "status": "success",
        "stream": True,
        "model": "openai/gpt-4o-mini",
        "model_group": "gpt-4o-mini",
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "response_cost": 5.4e-05,
        "startTime": started_s,
        "endTime": started_s + 1.5,
        "completionStartTime": started_s + 0.25,
        "metadata": {"user_api_key_hash": key_hash},
        "messages": [{"role": "user", "content": "prompt-words"}],
        **fields,
    }


def a_spend_row(payload: dict[str, Any], *, version: str = "1.109.1") -> dict[str, Any]:
    """The same call as a row of /spend/logs/v2, as different versions have it."""
    metadata = {"user_api_key": payload["metadata"]["user_api_key_hash"], "status": payload["status"]}
    row = {
        "request_id": payload["id"],
        "call_type": payload["call_type"],
        "api_key": payload["metadata"]["user_api_key_hash"],
        "spend": payload["response_cost"],
        "total_tokens": payload["total_tokens"],
        "prompt_tokens": payload["prompt_tokens"],
        "completion_tokens": payload["completion_tokens"],
        "startTime": _iso(payload["startTime"]),
        "endTime": _iso(payload["endTime"]),
        "completionStartTime": _iso(payload["completionStartTime"]),
        "model": payload["model"],
        "model_group": payload["model_group"],
        "user": "default_user_id",
        "metadata": metadata if version != "1.80.8" else json.dumps(metadata),
        "cache_hit": "False",
    }
    if version == "1.109.1":
        row |= {"status": payload["status"], "litellm_call_id": payload["litellm_call_id"], "request_duration_ms": 1500}
    return row


def _iso(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
