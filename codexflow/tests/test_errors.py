"""Error codes: unique, documented and permanent."""

import re
from collections.abc import Iterator
from http import HTTPStatus
from importlib import import_module

import pytest

from codexflow.env import REPOSITORY
from codexflow.lib.envelope import envelope
from codexflow.lib.errors import AppError
from codexflow.lib.http import headers_of
from codexflow.pages.markdown import render
from logs.refusals.advice import ADVICE
from routing.errors import UpstreamFailure, UpstreamRefused
from tests.support.lists import assert_same

# Permanent: clients rely on every line. code -> status
TABLE = {
    "api_key_expired": 401, "api_key_revoked": 401,
    "account_suspended": 403, "action_not_allowed": 403, "authentication_unavailable": 503, "client_disconnected": 499,
    "content_not_kept": 404, "database_unavailable": 503,
    "concurrency_limit_exceeded": 429, "daily_quota_exceeded": 429, "headers_too_large": 431, "insufficient_quota": 402,
    "invalid_max_cost": 400, "max_cost_exceeded": 402, "planner_disabled": 400,
    "invalid_planner_header": 400, "plan_not_found": 404,
    "internal_error": 500, "invalid_api_key": 401, "invalid_header": 400, "invalid_json": 400, "invalid_report": 400,
    "invalid_request": 400, "invalid_stage": 400, "invalid_tag": 400, "invalid_webhook_key": 401,
    "key_limit_reached": 403, "key_not_changeable": 409, "key_not_rotatable": 409, "limit_above_plan": 400,
    "limiter_unavailable": 503, "method_not_allowed": 405,
    "model_not_allowed": 400, "model_not_allowed_for_key": 403, "model_not_priced": 400, "model_retired": 404,
    "not_found": 404,
    "rate_limit_exceeded": 429, "reauthentication_required": 403, "request_timeout": 408, "request_too_large": 413,
    "shutting_down": 503, "stage_not_allowed": 403, "surface_not_allowed": 403, "compaction_unreadable": 400,
    "thread_unsupported_request": 400, "token_rate_exceeded": 429, "unknown_route": 404, "upstream_rate_limited": 429,
    "upstream_refused": 400, "upstream_stream_broken": 502, "upstream_timeout": 504, "upstream_unavailable": 503,
    "upload_limit_exceeded": 429, "url_too_long": 414, "uploads_full": 503,
    "webhook_address_refused": 403, "webhook_rate_limited": 429, "webhook_too_large": 413, "webhook_unavailable": 503,
    "websockets_unsupported": 426, "too_many_exports": 429, "too_many_reports": 429, "export_not_ready": 409,
    "export_file_missing": 500, "export_expired": 410, "idempotency_key_reused": 409, "money_rule": 409,
    "tool_not_sold": 400, "unsupported_content_encoding": 415,
}  # fmt: skip
# Never sent to a caller: failed attempts in the request log, and Redis errors, which are handled.
INTERNAL = {
    "redis_unavailable", "upstream_broken", "upstream_connect_failed", "upstream_error", "upstream_invalid_answer",
}  # fmt: skip
# Written to the request log by the sweeper.
LOGGED_ONLY = {"gateway_lost"}


# Of providers, passed on.
UPSTREAM_CODES = {"context_length_exceeded", "content_policy_violation"}


# Errors of development services, and Django's own error pages.
NOT_APP_ERRORS = {"codexflow.dev.errors", "codexflow.dev.demo_upstream.errors", "codexflow.pages.errors"}


def kinds(base: type[AppError] = AppError) -> Iterator[type[AppError]]:
    yield base
    for each in base.__subclasses__():
        yield from kinds(each)


def every_error() -> dict[str, type[AppError]]:
    """Error classes by code. Importing a module registers its classes; abstract bases share the code of the root."""
    for app in ("accounts", "adminpanel", "billing", "codexflow", "keys", "logs", "routing"):
        for path in (REPOSITORY / app).rglob("errors.py"):
            name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
            if name not in NOT_APP_ERRORS:
                import_module(name)
    return {each.code: each for each in kinds() if each.__module__.split(".")[-2] != "tests"}


def test_the_table_lists_exactly_the_existing_codes() -> None:
    assert_same({*TABLE, *INTERNAL}, every_error(), "TABLE in codexflow/tests/test_errors.py")


@pytest.mark.parametrize(("code", "status"), TABLE.items())
def test_error_body_and_headers(code: str, status: int) -> None:
    kind = every_error()[code]
    error = kind(404, "words", code=code, param=None) if kind is UpstreamRefused else kind()
    assert int(kind.status) == status
    found = envelope(error)["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert (found["code"], found["param"]) == (code, None)
    assert found["message"]
    if status == HTTPStatus.UNAUTHORIZED:
        assert (b"www-authenticate", b"Bearer") in headers_of(error)


def test_facts_never_reach_the_caller() -> None:
    assert "secret" not in str(envelope(AppError(password="secret")))


def test_every_code_is_documented_with_its_status() -> None:
    text = (REPOSITORY / "docs" / "errors.md").read_text()
    documented = dict(re.findall(r"^\| `([a-z_]+)` \| (\d{3}|–) \|", text, re.MULTILINE))
    expected = {code: str(status) for code, status in TABLE.items()}
    expected |= dict.fromkeys(INTERNAL - {"redis_unavailable"} | LOGGED_ONLY, "–")
    assert_same(documented, expected, "docs/errors.md")
    assert documented == expected


def test_every_error_of_a_call_has_advice_and_a_place_in_the_docs() -> None:
    of_calls = {
        kind.code
        for kind in kinds()
        if kind.__module__ in ("routing.errors", "billing.errors", "codexflow.lib.errors")
        and not issubclass(kind, UpstreamFailure)
    }
    never_of_a_known_key = {"headers_too_large", "url_too_long", "database_unavailable", "not_found"}
    assert of_calls - never_of_a_known_key - set(ADVICE) == set()
    html = str(render((REPOSITORY / "docs" / "errors.md").read_text(), resolve=lambda _href: None).html)
    assert [code for code in {*TABLE, *ADVICE} - UPSTREAM_CODES if f'<tr id="{code}">' not in html] == []
