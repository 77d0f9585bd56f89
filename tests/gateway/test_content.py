"""Content capture in a running installation: off by default; when on, prompts and responses are in one table only."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from django.db import close_old_connections

from accounts.services import set_content_retention
from codexflow.lib.ids import random_id
from keys.services import IssuedKey
from keys.tests.factories import a_key
from logs.content.codec import Texts
from logs.content.store import content_of, name_of
from logs.litellm.tests.factories import a_payload
from logs.models import RequestContent, RequestLog
from tests.gateway.test_surfaces import STREAMING, SurfaceCase
from tests.support.installation import Gateway, Installation
from tests.support.remains import in_files, in_redis, in_tables
from tests.support.waiting import until

HOOK_KEY = "content-hook-key"


def a_marker() -> str:
    return f"planted{random_id().hex}"


def set_capture(running: Installation, key: IssuedKey, *, days: int = 1) -> None:
    """Set the organization's content capture, and wait until every gateway applies it."""
    set_content_retention(key.row.organization, days=days)
    # The change is announced to every gateway; a call shows when it applies.
    until(lambda: bool(days) == is_published(running, key), what="gateways that apply it")


def is_published(running: Installation, key: IssuedKey) -> bool:
    """Make a call. Returns whether the gateway published its content."""
    before = published_count(running)
    running.row_of(running.post(key.plain, model="gpt-6-luna"))
    return published_count(running) > before


def published_count(running: Installation) -> int:
    """Count the contents that were ever in the stream, where they stay only briefly."""
    stream = name_of(running.prefix)
    stats: Any = running.redis.xinfo_stream(stream) if running.redis.exists(stream) else {}
    return int(stats.get("entries-added", 0))


def stored_content(key: IssuedKey, request_id: str) -> Texts:
    def found() -> Texts | None:
        close_old_connections()
        key.row.organization.refresh_from_db()
        return content_of(key.row.organization, UUID(request_id))

    return until(found, what=f"content of {request_id}")


@pytest.mark.cut(2)
@pytest.mark.parametrize("case", STREAMING, ids=lambda case: case.path)
def test_by_default_no_content_is_stored_anywhere(running: Installation, case: SurfaceCase) -> None:
    key, marker, before = a_key(), a_marker(), published_count(running)
    for stream in (False, True):
        body = case.body(f"[[say:{marker}]]", stream=stream)
        response = running.ask(key.plain, case.path, **body)
        assert stream or marker in response.text  # events may cut it in two
        running.row_of(response)
    assert published_count(running) == before
    assert not RequestContent.objects.filter(organization=key.row.organization).exists()
    assert (in_redis(running, marker), in_tables(marker), in_files(running, marker)) == ([], [], [])


@pytest.mark.cut(2)
@pytest.mark.parametrize("case", STREAMING, ids=lambda case: case.path)
def test_with_capture_on_both_are_stored_as_they_went_over_the_wire(running: Installation, case: SurfaceCase) -> None:
    key, marker = a_key(), a_marker()
    set_capture(running, key)
    for stream in (False, True):
        response = running.ask(key.plain, case.path, **case.body(f"[[say:{marker}]]", stream=stream))
        texts = stored_content(key, response.headers["x-cfx-request-id"])
        assert texts.request == response.request.content.decode()
        assert texts.response == response.text
        assert marker in texts.request
        assert stream or marker in texts.response
        assert not texts.is_request_cut
        assert not texts.is_response_cut
    # Only in its table, where it is compressed.
    assert (in_tables(marker), in_files(running, marker)) == ([], [])
    assert until(lambda: in_redis(running, marker) == [], what="an empty stream")


def test_the_api_shows_content_only_to_permitted_readers(running: Installation) -> None:
    ada, eve = a_key(), a_key()
    set_capture(running, ada)
    response = running.say(ada.plain, "[[say:the-answer]] the-prompt", model="gpt-6-luna", stream=True)
    request_id = response.headers["x-cfx-request-id"]
    stored_content(ada, request_id)
    running.row_of(response)

    def ask(key: str) -> httpx.Response:
        where = f"{running.url}/api/v1/requests/{request_id}/content"
        return httpx.get(where, headers={"Authorization": f"Bearer {key}"})

    shown = ask(ada.plain)
    assert shown.headers["cache-control"] == "no-store"
    assert "the-prompt" in shown.json()["request"]
    assert shown.json()["answer"] == response.text
    stranger = ask(eve.plain)
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (404, "not_found")
    set_content_retention(ada.row.organization, days=0)
    gone = ask(ada.plain)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "content_not_kept")


def test_long_content_is_cut_in_storage_and_sent_whole(running: Installation) -> None:
    key = a_key()
    set_capture(running, key)
    words = "word " * 70_000
    response = running.say(key.plain, words, model="gpt-6-luna")
    assert response.status_code == 200
    texts = stored_content(key, response.headers["x-cfx-request-id"])
    assert (texts.is_request_cut, texts.is_response_cut) == (True, False)
    assert len(texts.request) == 256 * 1024
    assert response.request.content.decode().startswith(texts.request)
    response = running.say(key.plain, f"[[say:{words}]]", model="gpt-6-luna", stream=True)
    texts = stored_content(key, response.headers["x-cfx-request-id"])
    assert texts.is_response_cut
    assert response.text.endswith("[DONE]\n\n")
    assert response.text.startswith(texts.response)


def test_a_broken_stream_and_a_refused_call_are_stored_as_far_as_they_came(running: Installation) -> None:
    key = a_key()
    set_capture(running, key)
    cut = running.say(key.plain, "[[fault:cut after=5]]", model="gpt-6-luna", stream=True)
    assert stored_content(key, cut.headers["x-cfx-request-id"]).response == cut.text
    refused = running.say(key.plain, "[[fault:400]] the-prompt", model="gpt-6-luna")
    texts = stored_content(key, refused.headers["x-cfx-request-id"])
    assert ("the-prompt" in texts.request, texts.response) == (True, "")


def test_with_capture_off_the_gateway_publishes_nothing(running: Installation) -> None:
    key = a_key()
    set_capture(running, key)
    assert is_published(running, key)
    set_capture(running, key, days=0)
    assert not is_published(running, key)


# LiteLLM's webhook


@pytest.fixture(scope="module")
def listener(installation: Installation, django_db_blocker: Any) -> Any:
    with django_db_blocker.unblock():
        gateway = installation.new_gateway(LITELLM_WEBHOOK_KEY=HOOK_KEY)
    yield gateway
    gateway.stop()


def report(gateway: Gateway, *payloads: dict[str, Any]) -> None:
    where = f"{gateway.url}/api/webhook/litellm"
    assert httpx.post(where, json=payloads, headers={"X-API-Key": HOOK_KEY}).status_code == 202


def past_the_gateway(key: IssuedKey, marker: str, **fields: Any) -> dict[str, Any]:
    """Return the report of a call with a key of LiteLLM's own that belongs to this key's organization."""
    key.row.litellm_key_id = key.row.litellm_key_id or random_id().hex
    key.row.save(update_fields=["litellm_key_id"])
    content = {"messages": [{"role": "user", "content": marker}], "response": {"choices": [{"text": f"{marker}-told"}]}}
    return a_payload(f"call-{random_id().hex}", key_hash=key.row.litellm_key_id, **{**content, **fields})


def rows_of(key: IssuedKey) -> list[RequestLog]:
    close_old_connections()
    return list(RequestLog.objects.filter(organization_id=key.row.organization_id, source="webhook"))


def test_a_report_for_an_organization_without_capture_leaves_no_content(
    running: Installation, listener: Gateway
) -> None:
    other, key, marker, others = a_key(), a_key(), a_marker(), a_marker()
    set_capture(running, other)  # so that the webhook reads contents
    until(
        lambda: is_stored_from_report(running, listener, other, others),
        what="a webhook in force",
    )
    report(listener, past_the_gateway(key, marker), past_the_gateway(other, "the-last-one"))
    until(lambda: [each for each in _contents(other) if "the-last-one" in each], what="the other report's content")
    assert until(lambda: rows_of(key), what="the call's row")
    assert not RequestContent.objects.filter(organization=key.row.organization).exists()
    assert (in_redis(running, marker), in_tables(marker), in_files(running, marker)) == ([], [], [])


def test_a_report_of_a_call_past_the_gateway_is_stored_with_capture_on(
    running: Installation, listener: Gateway
) -> None:
    key, marker = a_key(), a_marker()
    set_capture(running, key)
    until(lambda: is_stored_from_report(running, listener, key, marker), what="a stored report")
    assert (in_tables(marker), in_files(running, marker)) == ([], [])


def is_stored_from_report(running: Installation, listener: Gateway, key: IssuedKey, marker: str) -> bool:
    """Report a call. The webhook may use an outdated setting for some seconds."""
    report(listener, past_the_gateway(key, marker))
    for row in until(lambda: rows_of(key), what="the call's row"):
        key.row.organization.refresh_from_db()
        texts = content_of(key.row.organization, row.request_id)
        if texts is not None:
            assert marker in texts.request
            assert f"{marker}-told" in texts.response
            return True
    return False


def test_content_that_litellm_redacts_is_not_stored(running: Installation, listener: Gateway) -> None:
    key, marker = a_key(), a_marker()
    set_capture(running, key)
    until(lambda: is_stored_from_report(running, listener, key, marker), what="a webhook in force")
    redacted = [{"role": "user", "content": "redacted-by-litellm"}]
    report(
        listener,
        past_the_gateway(key, marker, messages=redacted, response={"text": "redacted-by-litellm"}),
        past_the_gateway(key, "the-last-one"),
    )
    until(lambda: [each for each in _contents(key) if "the-last-one" in each], what="the other report's content")
    assert not [each for each in _contents(key) if "redacted-by-litellm" in each]


def _contents(key: IssuedKey) -> list[str]:
    close_old_connections()
    found = RequestContent.objects.filter(organization=key.row.organization).values_list("pk", flat=True)
    texts = [content_of(key.row.organization, pk) for pk in found]
    return [each.request for each in texts if each is not None]


def test_a_report_does_not_replace_content_of_the_gateway(running: Installation, listener: Gateway) -> None:
    key, marker = a_key(), a_marker()
    set_capture(running, key)
    until(lambda: is_stored_from_report(running, listener, key, marker), what="a webhook in force")
    response = running.say(key.plain, "the-prompt", model="gpt-6-luna")
    request_id = response.headers["x-cfx-request-id"]
    running.row_of(response)
    before = stored_content(key, request_id)
    other = a_payload(f"{request_id}.1", response={"text": "other"})
    report(listener, other, past_the_gateway(key, "the-last-one"))
    until(lambda: [each for each in _contents(key) if "the-last-one" in each], what="both reports")
    assert stored_content(key, request_id) == before
    RequestContent.objects.filter(pk=request_id).delete()
    report(listener, other)
    assert "prompt-words" in stored_content(key, request_id).request
