"""`python -m tests.support.demo_data SLUG`: demo data for an organization, so that pages have something to show.

Two weeks of plausible usage, a second member, an invitation, an export and a reconciled day. Events are stored by the
drain's own code; the numbers come from a fixed seed.
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import django

if TYPE_CHECKING:
    from accounts.models import Organization, User
    from logs.pipeline.events import UsageEvent

DAYS = 14
SHARES = (("plan", 0.22), ("code", 0.46), ("review", 0.2), ("direct", 0.12))
HOURS = (8, 9, 10, 10, 11, 11, 12, 13, 14, 14, 15, 15, 16, 17, 18, 20)


def main(slug: str) -> int:
    django.setup()
    from accounts import members
    from accounts.models import Organization
    from accounts.webhooks.services import add_endpoint, send_test
    from billing.limiter.limits import ShardKeys
    from billing.models import Plan
    from billing.payments.orders import open_order
    from billing.services import raise_budget, set_tag_budget
    from codexflow.catalogue import directory
    from codexflow.lib import clock
    from codexflow.settings import ENV
    from keys.services import issue_key
    from logs.litellm.ingest import take
    from logs.litellm.reconciliation import totals
    from logs.litellm.tests.factories import a_payload, mapped
    from logs.models import DayReconciled, ExportJob
    from logs.pipeline.drain import Entry, store
    from logs.pipeline.events import encode

    directory.load(ENV.config_path)
    organization = Organization.objects.get(slug=slug)
    owner = organization.members.get(memberships__role="owner")
    keys = [issue_key(organization, name=name, created_by=owner).row.pk for name in ("prod-web", "ci-agent", "laptop")]
    invitations = [
        members.invite(organization, email=f"{name}@example.org", role=role, by_role="owner", actor=owner)
        for name, role in (("ben", "developer"), ("nina", "viewer"))
    ]
    members.accept(invitations[0], actor=_colleague())
    shard = ShardKeys.of(ENV.redis_prefix, 0)
    entries = [
        Entry(shard, b"demo-%d" % n, encode(event)) for n, event in enumerate(_events(organization.pk, keys, owner.pk))
    ]
    for start in range(0, len(entries), 200):
        store(entries[start : start + 200])
    ExportJob.objects.create(
        organization=organization, created_by=owner, format=ExportJob.Format.CSV, state=ExportJob.State.EXPIRED
    )
    open_order(organization, provider="manual", amount_nanos=25_000_000_000, actor=owner)
    _paid_orders(organization)
    Plan.objects.filter(slug="pro").update(trial_days=14, trial_credit_nanos=5_000_000_000)
    budget = set_tag_budget(organization, "team-search", day_nanos=None, month_nanos=900_000_000_000, actor=owner)
    raise_budget(
        organization, window="month", amount_nanos=50_000_000_000, reason="Launch", tag_budget=budget, actor=owner
    )
    endpoint, _secret = add_endpoint(
        organization, url="https://example.com/hooks/codexflow", events=["key.created"], actor=owner
    )
    send_test(endpoint)
    take(mapped(a_payload("demo-call-of-a-key-that-nobody-knows", key_hash="5e" * 32)))
    yesterday = clock.now().date() - timedelta(days=1)
    DayReconciled.objects.create(day=yesterday, compared_at=clock.now(), **asdict(totals([yesterday])))
    sys.stdout.write(f"{len(entries)} requests\n")
    return 0


def _paid_orders(organization: "Organization") -> None:
    """An invoice with 20 % tax and a credit note for a part of it."""
    from django.conf import settings

    from billing.papers.issue import issue_credit_note
    from billing.papers.tests.scene import an_invoice, with_seller

    before, settings.ENV = settings.ENV, with_seller()
    issue_credit_note(an_invoice(organization, usd=50), 1_250, reason="Unused credit")
    settings.ENV = before


def _colleague() -> "User":
    from accounts.services import create_user_with_organization

    return create_user_with_organization(email="ben@example.org", password=None, name="Ben")


def _events(organization_id: UUID, keys: list[UUID], user_id: int) -> "Iterator[UsageEvent]":
    from billing.pricing import Usage, cost_nanos, frozen
    from codexflow.catalogue import directory
    from codexflow.lib import clock
    from logs.pipeline.events import AttemptFact, UsageEvent

    draw = random.Random(20)  # noqa: S311 - nothing secret
    catalogue = directory.current()
    now_ms = clock.now_ms()
    day_ms = 86_400_000
    today = now_ms // day_ms
    for back in range(DAYS - 1, -1, -1):
        for _ in range(draw.randint(12, 34) if back % 7 not in (1, 2) else draw.randint(3, 9)):
            started_ms = (today - back) * day_ms + draw.choice(HOURS) * 3_600_000 + draw.randint(0, 3_599_999)
            if started_ms > now_ms:
                started_ms = now_ms - draw.randint(5_000, 2_400_000)
            stage = draw.choices([name for name, _ in SHARES], [share for _, share in SHARES])[0]
            model = (
                draw.choice(("gpt-6.1-sol", "claude-haiku-5.5")) if stage == "direct" else catalogue.stages[stage].model
            )
            rates = frozen(catalogue.prices[model])
            chance = draw.random()
            prompt = draw.randint(400, 9_000)
            usage = Usage(
                prompt_tokens=prompt,
                cached_tokens=prompt // 2 if draw.random() < 0.2 else 0,
                completion_tokens=draw.randint(80, 2_400),
            )
            first_ms = draw.randint(160, 900)
            latency_ms = first_ms + usage.completion_tokens * draw.randint(2, 6) // 3
            attempts: tuple[AttemptFact, ...] = (
                AttemptFact(n=1, model=model, status=200, first_byte_ms=first_ms, duration_ms=latency_ms),
            )
            status, error = 200, ""
            if chance < 0.04:
                status, error, usage = 503, "upstream_unavailable", Usage()
                attempts = (
                    AttemptFact(n=1, model=model, status=503, error_code="upstream_busy", duration_ms=latency_ms),
                )
            elif chance < 0.12 and stage != "direct":
                second = catalogue.stages[stage].fallback[0]
                rates = frozen(catalogue.prices[second])
                half = latency_ms // 3
                attempts = (
                    AttemptFact(n=1, model=model, status=502, error_code="upstream_error", duration_ms=half),
                    AttemptFact(
                        n=2,
                        model=second,
                        status=200,
                        started_offset_ms=half,
                        first_byte_ms=first_ms,
                        duration_ms=latency_ms,
                    ),
                )
                model, latency_ms = second, half + latency_ms
            cost = cost_nanos(usage, rates)
            yield UsageEvent(
                request_id=UUID(
                    int=started_ms << 80 | 7 << 76 | draw.getrandbits(12) << 64 | 1 << 63 | draw.getrandbits(62)
                ),
                organization_id=organization_id,
                key_id=draw.choices(keys, (6, 3, 1))[0],
                user_id=user_id,
                day=started_ms // day_ms,
                started_ms=started_ms,
                surface="chat",
                endpoint="/v1/chat/completions",
                stage=stage,
                stage_reason="model" if stage == "direct" else draw.choice(("header", "stage-alias", "keyword")),
                requested_model=model if stage == "direct" else f"cfx-{stage}",
                model=model,
                status=status,
                error_code=error,
                usage=usage,
                rank=40,
                rates=rates,
                cost_nanos=cost,
                hold_nanos=cost * 3,
                latency_ms=latency_ms,
                ttft_ms=first_ms if status == 200 else None,
                is_stream=draw.random() < 0.8,
                attempts=attempts,
                user_agent="OpenAI/Python 2.8.1",
                tag=("team-search", "", "customer/acme:nightly", "")[started_ms // 1000 % 4],
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
