"""A limit holds everywhere: in the plan, the key, the script, the fallback, the forms, the API and the documents."""

import asyncio
import re
from dataclasses import dataclass, fields, replace
from struct import Struct
from typing import Any

import pytest
from django.conf import settings

from billing.limiter.limits import Claim, Payer, ScopeTotals, admit
from billing.models import Account, Plan
from billing.plans import Limits
from billing.selectors import account_of
from billing.services import limits_of
from billing.tests.factories import an_organization
from codexflow.env import REPOSITORY
from codexflow.lib.errors import AppError
from codexflow.lib.ids import new_id, random_id
from codexflow.lib.redis import Pipeline
from keys.forms import KeyForm
from keys.management.commands import create_key
from keys.models import ApiKey
from keys.selectors import principal_of
from keys.serializers import KeySerializer, NewKeySerializer
from keys.services import KeyTerms
from keys.tests.factories import a_key

NAMES = [each.name for each in fields(Limits) if each.name != "packed"]


@dataclass(frozen=True)
class Places:
    """Places of one limit. `key`, `api`, `form` and `option` are None for a limit that only an organization has."""

    model: type[Plan] | type[Account]
    column: str
    words: str  # beginning of its row in docs/limits.md
    code: str
    key: str | None = None
    api: str | None = None
    form: str | None = None
    option: str | None = None


PLACES = {
    "daily_requests": Places(
        Plan, "daily_requests", "requests per day", "daily_quota_exceeded",
        key="daily_requests", api="daily_requests", form="daily_requests", option="--daily-requests",
    ),
    "rpm": Places(
        Plan, "rpm", "requests per minute", "rate_limit_exceeded", key="rpm", api="rpm", form="rpm", option="--rpm"
    ),
    "tpm": Places(
        Plan, "tpm", "tokens per minute", "token_rate_exceeded", key="tpm", api="tpm", form="tpm", option="--tpm"
    ),
    "concurrent_streams": Places(
        Plan, "concurrent_streams", "concurrent streams", "concurrency_limit_exceeded",
        key="concurrent_streams", api="concurrent_streams", form="concurrent_streams", option="--streams",
    ),
    "total_budget_nanos": Places(Account, "credit_nanos", "credit", "insufficient_quota"),
    "day_budget_nanos": Places(
        Account, "budget_day_nanos", "budget per day", "insufficient_quota",
        key="budget_day_nanos", api="budget_day_usd", form="day_budget_usd", option="--day-budget-usd",
    ),
    "month_budget_nanos": Places(
        Account, "budget_month_nanos", "budget per day, per month", "insufficient_quota",
        key="budget_month_nanos", api="budget_month_usd", form="budget_usd", option="--budget-usd",
    ),
}  # fmt: skip
OF_KEYS = [name for name, places in PLACES.items() if places.key]
SOME = 7


def read(path: str) -> str:
    return (REPOSITORY / path).read_text()


def test_every_limit_has_its_places_here() -> None:
    assert set(PLACES) == set(NAMES), f"places of {set(PLACES) ^ set(NAMES)}"


@pytest.mark.django_db
@pytest.mark.parametrize("name", NAMES)
def test_a_limit_of_an_organization_is_read_from_its_plan_or_account(name: str) -> None:
    organization, places = an_organization(plan="pro"), PLACES[name]
    account = account_of(organization)
    target = account.plan if places.model is Plan else account
    setattr(target, places.column, SOME)
    assert getattr(limits_of(account), name) == SOME, f"billing/services.py: limits_of forgets {name}"


@pytest.mark.django_db
@pytest.mark.parametrize("name", OF_KEYS)
def test_a_limit_of_a_key_reaches_its_principal(name: str) -> None:
    terms: dict[str, Any] = {str(PLACES[name].key): SOME}
    key = a_key(**terms)
    principal = principal_of(key.row.public_id)
    assert principal is not None
    assert getattr(principal.limits[1], name) == SOME, f"keys/selectors.py: the principal forgets {name}"


@pytest.mark.parametrize("name", OF_KEYS)
def test_a_limit_of_a_key_is_in_every_form_of_a_key(name: str) -> None:
    places = PLACES[name]
    assert places.key in {each.name for each in fields(KeyTerms)}, f"keys/services.py: KeyTerms lacks {name}"
    assert places.key in {each.name for each in ApiKey._meta.fields}, f"keys/models.py: ApiKey lacks {name}"
    assert {places.form} & {*KeyForm.base_fields}, f"keys/forms.py: KeyForm lacks {name}"
    assert places.api in NewKeySerializer().fields, f"keys/serializers.py: NewKeySerializer lacks {name}"
    assert places.api in KeySerializer().fields, f"keys/serializers.py: KeySerializer lacks {name}"
    for template, word in (("_terms.html", f"form.{places.form}"), ("detail.html", f"key.{places.key}")):
        assert word in read(f"templates/keys/{template}"), f"templates/keys/{template} does not show {name}"
    assert f"`{places.api}`" in read("docs/api.md"), f"docs/api.md does not name {places.api}"


@pytest.mark.parametrize("name", OF_KEYS)
def test_a_limit_of_a_key_is_an_option_of_create_key(name: str) -> None:
    options = create_key.Command().create_parser("manage.py", "create_key")._option_string_actions
    assert PLACES[name].option in options, f"keys/management/commands/create_key.py lacks {name}"


@pytest.mark.parametrize("name", [name for name, places in PLACES.items() if places.model is Plan])
def test_a_limit_of_a_plan_is_shown_and_edited(name: str) -> None:
    column = PLACES[name].column
    assert f'"{column}"' in read("billing/admin.py"), f"billing/admin.py: operators cannot set {name}"
    pages = read("templates/pages/pricing.html") + read("templates/partials/_plans.html")
    assert column in pages, f"the pricing page does not show {name}"


def test_the_script_unpacks_every_limit_in_order() -> None:
    script = read("billing/limiter/lua/admit.lua")
    unpacked = re.search(r"([\w, ]+), at = unpack_numbers\('<(d+)', packed, at\)", script)
    assert unpacked is not None
    names = unpacked[1].strip().split(", ")
    assert len(names) == len(NAMES) == len(unpacked[2]), f"admit.lua unpacks {names}, Limits has {NAMES}"
    packed = Limits(**{name: number for number, name in enumerate(NAMES, start=1)}).packed
    numbers = list(Struct(f"<{unpacked[2]}").unpack(packed))
    assert numbers == list(range(1, len(NAMES) + 1)), "Limits.packed: another order"


@pytest.mark.parametrize("scope", [0, 1], ids=["organization", "key"])
@pytest.mark.parametrize("name", NAMES)
def test_a_limit_of_zero_admits_nothing(name: str, scope: int) -> None:
    """The script knows the limit, and its refusal has the documented code."""
    limits = [Limits(), Limits()]
    zero: dict[str, Any] = {name: 0}
    limits[scope] = replace(limits[scope], **zero)
    refused = asyncio.run(_refusal((limits[0], limits[1])))
    assert refused is not None, f"admit.lua ignores {name}"
    assert refused.code == PLACES[name].code
    rows = [line for line in read("docs/limits.md").splitlines() if line.startswith(f"| {PLACES[name].words}")]
    assert any(f"`{refused.code}`" in row for row in rows), f"docs/limits.md has no row of {name} with {refused.code}"


async def _refusal(limits: tuple[Limits, Limits]) -> AppError | None:
    redis = Pipeline(settings.ENV.redis_url, timeout_s=5)
    await redis.start()
    payer = Payer.of(settings.ENV.redis_prefix, random_id(), random_id())

    async def no_totals(*_: Any) -> ScopeTotals:
        return ScopeTotals()

    claim = Claim(request_id=new_id(), takes_slot=True, hold_nanos=1, tokens=1, intent=b"intent")
    try:
        await admit(redis, payer, limits, claim, lease_ms=1_000, load_totals=no_totals)
    except AppError as exc:
        return exc
    finally:
        await redis.close()
    return None
