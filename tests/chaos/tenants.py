"""`python -m tests.chaos.tenants make FILE`: create organizations and keys for the callers and write them to FILE.

`raise FILE` gives them money again, and `read FILE` renews the limits in it.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django

Json = dict[str, Any]
CREDIT_PLAN: Json = {
    "name": "Chaos credit", "included_credit_nanos": 1_500_000, "rpm": 100_000, "tpm": 100_000_000,
    "daily_requests": 100_000, "concurrent_streams": 3, "max_keys": 10, "has_hard_budget": True, "is_public": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """A key to make: its share of the traffic, its caller's manner, and its limits."""

    name: str
    share: int
    terms: Json = field(default_factory=dict)
    manner: str = "polite"
    rotates: bool = False


# name, plan, credit on top (USD), budget of the organization's day (nano-USD), keys. Most limits are reached in a run,
# so that calls are refused at them, and most calls meet none.
_ORGANIZATIONS: tuple[tuple[str, str, str, int | None, tuple[Key, ...]], ...] = (
    ("Ada", "internal", "0", None, (Key("free", 12), Key("daily", 2, {"daily_requests": 40}))),
    ("Ben", "team", "100", None, (Key("busy", 6), Key("narrow", 3, {"concurrent_streams": 2, "rpm": 40}))),
    (
        "Eve",
        "internal",
        "0",
        None,
        (
            Key("tokens", 3, {"tpm": 2_000}),
            Key("day", 2, {"budget_day_nanos": 300_000}),
            Key("month", 2, {"budget_month_nanos": 400_000}),
        ),
    ),
    (
        "Gil",
        "chaos-credit",
        "0",
        None,
        (Key("credit", 3), Key("more", 2, manner="fickle"), Key("plans", 1, manner="planner")),
    ),
    ("Hal", "internal", "0", 500_000, (Key("own budget", 2),)),
    ("Ida", "free", "0", None, (Key("smallest", 1),)),
    (
        "Jon",
        "internal",
        "0",
        None,
        (
            Key("turns", 3, {"daily_requests": 60, "budget_day_nanos": 3_000_000}, rotates=True),
            Key("leaves", 3, manner="fickle"),
        ),
    ),
    ("Kim", "internal", "0", None, (Key("odd", 5, manner="odd provider"), Key("hostile", 3, manner="hostile"))),
    ("Lea", "internal", "0", None, (Key("plans", 3, manner="planner"),)),
)


def make() -> list[Json]:
    """Create them. Returns each key with the facts that the audit needs."""
    # Models can be imported only once Django is set up.
    from accounts.models import User
    from accounts.services import create_organization
    from billing.ledger import post_credit
    from billing.models import LedgerEntry, Plan
    from billing.services import set_budgets
    from codexflow.catalogue import directory
    from codexflow.lib.money import parse_usd
    from codexflow.settings import ENV
    from keys.services import KeyTerms, issue_key

    directory.load(ENV.config_path)
    Plan.objects.update_or_create(slug="chaos-credit", defaults=CREDIT_PLAN)
    made = []
    for name, plan, credit, day_nanos, keys in _ORGANIZATIONS:
        owner = User.objects.create_user(f"{name.lower()}@chaos.example", None)
        organization = create_organization(name=name, owner=owner, plan=plan)
        if nanos := parse_usd(credit):
            post_credit(organization, nanos, kind=LedgerEntry.Kind.TOP_UP, reference="chaos")
        if day_nanos is not None:
            set_budgets(organization, day_nanos=day_nanos, month_nanos=None, actor=owner)
        for key in keys:
            issued = issue_key(organization, name=key.name, created_by=owner, terms=KeyTerms(**key.terms))
            made.append(
                {
                    "name": f"{name}/{key.name}",
                    "secret": issued.plain,
                    "key_id": str(issued.row.id),
                    "organization_id": str(organization.id),
                    "margin_bp": organization.account.plan.margin_bp,
                    "share": key.share,
                    "manner": key.manner,
                    "rotates": key.rotates,
                }
            )
    return bounded(made)


def bounded(callers: list[Json]) -> list[Json]:
    """Add the limits that each has now, from PostgreSQL."""
    from billing.selectors import account_of
    from billing.services import limits_of
    from codexflow.catalogue import directory
    from codexflow.settings import ENV
    from keys.models import BUDGETS, LIMITS, ApiKey

    directory.load(ENV.config_path)
    found = []
    for caller in callers:
        key = ApiKey.objects.select_related("organization").get(pk=caller["key_id"])
        limits = limits_of(account_of(key.organization))
        of_all = {
            "daily_requests": limits.daily_requests,
            "rpm": limits.rpm,
            "tpm": limits.tpm,
            "streams": limits.concurrent_streams,
            "credit_nanos": limits.total_budget_nanos,
            "day_nanos": limits.day_budget_nanos,
            "month_nanos": limits.month_budget_nanos,
        }
        bounds = {_BOUNDS.get(name, name): getattr(key, name) for name in (*LIMITS, *BUDGETS)}
        of_organization = {name: limit for name, limit in of_all.items() if limit >= 0}
        found.append({**caller, "bounds": bounds, "organization_bounds": of_organization})
    return found


_BOUNDS = {"concurrent_streams": "streams", "budget_day_nanos": "day_nanos", "budget_month_nanos": "month_nanos"}


def raise_money(callers: list[Json]) -> None:
    """Give every credit and budget that is used up as much as at first, so that callers are near them again."""
    from accounts.models import Organization
    from billing.ledger import post_credit
    from billing.models import LedgerEntry
    from billing.selectors import account_of
    from billing.services import set_budgets
    from codexflow.catalogue import directory
    from codexflow.settings import ENV
    from keys.models import ApiKey
    from keys.services import change_key

    directory.load(ENV.config_path)
    for name, plan, _, day_nanos, keys in _ORGANIZATIONS:
        mine = [caller for caller in callers if caller["name"].startswith(f"{name}/")]
        organization = Organization.objects.get(pk=mine[0]["organization_id"])
        if plan == "chaos-credit":
            nanos = CREDIT_PLAN["included_credit_nanos"]
            post_credit(organization, nanos, kind=LedgerEntry.Kind.TOP_UP, reference="chaos")
        if day_nanos is not None:
            budget_nanos = account_of(organization).budget_day_nanos or 0
            set_budgets(organization, day_nanos=budget_nanos + day_nanos, month_nanos=None)
        for key, caller in zip(keys, mine, strict=True):
            budgets = {field: nanos for field, nanos in key.terms.items() if field.startswith("budget")}
            if budgets and not key.rotates:
                row = ApiKey.objects.get(pk=caller["key_id"])
                change_key(row, {field: getattr(row, field) + nanos for field, nanos in budgets.items()})


def main(verb: str, path: Path) -> None:
    if verb == "make":
        path.write_text(json.dumps(make()))
        return
    callers = json.loads(path.read_text())
    if verb == "raise":
        raise_money(callers)
    path.write_text(json.dumps(bounded(callers)))


if __name__ == "__main__":
    django.setup()
    main(sys.argv[1], Path(sys.argv[2]))
