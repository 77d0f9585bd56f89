"""Alert rules and dashboard, in a real Prometheus on the samples of an installation: every query finds something."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml
from django.conf import settings
from typing_extensions import override

from adminpanel.metrics import METRICS, PREFIX, text_of
from adminpanel.samples import Sample, ask_redis, journal_samples, postgres_samples, redis_samples
from billing.ledger_audit import store_audit
from codexflow.env import REPOSITORY
from codexflow.lib import clock
from codexflow.lib.redis import sync_client
from logs.litellm.daily import FIELDS
from logs.models import DayMargin, DayReconciled, RefusalCount, SyncRun
from tests.support.cast import Cast, an_event_of, happened
from tests.support.prometheus import running_prometheus
from tests.support.waiting import until

pytestmark = [pytest.mark.prometheus, pytest.mark.django_db]
RULES = [
    rule
    for group in yaml.safe_load((REPOSITORY / "monitoring" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = json.loads((REPOSITORY / "monitoring" / "dashboard.json").read_text())["panels"]
# Values of an installation in which each alert has a reason.
BAD: dict[str, float] = {
    "postgres_up": 0,
    "redis_up": 0,
    "redis_memory_ratio": 0.71,
    "usage_oldest_event_seconds": 61,
    "usage_events_waiting": 20_001,
    "report_deliveries_waiting": 101,
    "breaker_state": 2,
    "journal_segments": 1,
    "journal_oldest_seconds": 901,
    "dead_letters": 1,
    "unmatched_reports": 1,
    "sync_success": 0,
    "sync_age_seconds": 7_201,
    "reconciliation_age_seconds": 129_601,
    "ledger_audit_findings": 1,
    "ledger_audit_age_seconds": 100_001,
    "payment_events_failed": 1,
    "payment_events_waiting": 1,
    "margin_losing_models": 1,
    "partition_days_ahead": 2,
    "partition_stray_rows": 1,
}


def samples_of_an_installation(cast: Cast, journal: Path) -> list[Sample]:
    """Samples of an installation at work: calls, a refusal, a sync, a reconciliation, a margin report and an audit."""
    happened(cast, *(an_event_of(cast, model="gpt-6-luna", latency_ms=300, ttft_ms=40) for _ in range(40)))
    happened(cast, an_event_of(cast, model="gpt-6-luna", status=503, error_code="upstream_unavailable"))
    at = clock.now()
    RefusalCount.objects.create(
        organization_id=cast.organization.pk, key_id=cast.key.pk, code="rate_limited", minute=at, count=3
    )
    SyncRun.objects.create(window_start=at, window_end=at, ended_at=at)
    numbers = {**dict.fromkeys(FIELDS, 0), "matched": 5_000}
    DayReconciled.objects.create(day=at.date() - timedelta(days=1), compared_at=at, **numbers)
    counts = dict.fromkeys(("unreported", "unreported_nanos", "left_early", "left_early_nanos", "estimated"), 0)
    DayMargin.objects.create(
        day=at.date() - timedelta(days=1),
        model="gpt-6-luna",
        stored_at=at,
        calls=9,
        charged_nanos=9,
        upstream_nanos=3,
        is_loss=False,
        **counts,
    )
    store_audit([], now=at)
    pipe: Any = sync_client(settings.ENV.redis_url).pipeline(transaction=False)
    models = ask_redis(pipe, f"{settings.ENV.redis_prefix}_monitoring")
    up = [Sample("postgres_up", 1), Sample("redis_up", 1)]
    return [*up, *postgres_samples(), *redis_samples(models, pipe.execute()), *journal_samples(journal)]


def bad(each: Sample) -> Sample:
    """The same sample in an installation in which everything is wrong."""
    if each.name == "calls_today" and each.labels[1] == "error":
        return each._replace(value=each.value + 50_000)
    if each.name == "reconciliation_calls" and each.labels[1].startswith("missing"):
        return each._replace(value=50)
    return each._replace(value=BAD.get(each.name, each.value))


class Exported:
    """Text that is exported now, over HTTP."""

    def __init__(self) -> None:
        self.text = b""
        self.address = ""

    @contextmanager
    def serve(self) -> Iterator[None]:
        exported = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(exported.text)

            @override
            def log_message(self, *_args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def values(prometheus: str, expr: str) -> list[float]:
    """Values of an expression now; of one that cannot be evaluated, fails."""
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expr}, timeout=10).json()
    assert answer["status"] == "success", f"{expr}: {answer}"
    return [float(each["value"][1]) for each in answer["data"]["result"]]


def fires(prometheus: str, condition: str) -> bool:
    return 1 in values(prometheus, condition)


def as_number(expr: str) -> str:
    """The condition of an alert as 0 or 1 in place of nothing or something."""
    numbered, count = re.subn(r" (==|>|<) (?=[\d.]+$)", r" \1 bool ", expr.strip())
    assert count == 1, f"{expr} has no comparison at its end"
    return numbered


def test_every_query_finds_something_and_every_alert_has_a_case(cast: Cast, tmp_path: Path) -> None:
    exported = Exported()
    good = samples_of_an_installation(cast, tmp_path)
    exported.text = text_of(good)
    conditions = {rule["alert"]: as_number(rule["expr"]) for rule in RULES}
    with exported.serve(), running_prometheus(exported.address, tmp_path) as prometheus:
        for panel in PANELS:
            for target in panel["targets"]:
                found = until(partial(values, prometheus, target["expr"]), what=f"{panel['title']}: {target}")
                assert found
        for alert, expr in conditions.items():
            if alert != "CodexFlowNotScraped":
                found = until(partial(values, prometheus, expr), what=alert)
                # A rate of nothing by nothing is no number: no call came within the last minutes.
                assert not any(each == 1 for each in found), f"{alert} fires although all is well"
        exported.text = text_of([bad(each) for each in good])
        for alert, expr in conditions.items():
            if alert != "CodexFlowNotScraped":
                until(partial(fires, prometheus, expr), what=f"{alert} does not fire")
        exported.text = b"no metrics {"
        until(partial(fires, prometheus, conditions["CodexFlowNotScraped"]), what="CodexFlowNotScraped")


def test_every_metric_is_on_the_dashboard() -> None:
    queries = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    shown = set(re.findall(rf"{PREFIX}([a-z_]+)", queries))
    assert {name.removesuffix("_bucket") for name in shown} == set(METRICS)


def test_every_alert_says_how_urgent_it_is_and_what_it_means() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]
