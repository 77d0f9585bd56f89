"""`python -m tests.chaos.tenants FILE`: create organizations and keys for the callers and write them to FILE."""

import json
import sys
from pathlib import Path
from typing import Any

import django

# name, plan, credit on top (USD), keys: (name, share of the traffic, limits)
_ORGANIZATIONS: tuple[tuple[str, str, str, tuple[tuple[str, int, dict[str, Any]], ...]], ...] = (
    ("Ada", "internal", "0", (("free", 8, {}), ("daily", 2, {"daily_requests": 60}))),
    ("Ben", "team", "100", (("busy", 6, {}), ("narrow", 3, {"concurrent_streams": 2, "rpm": 120}))),
    ("Eve", "internal", "0", (("tokens", 3, {"tpm": 600_000}), ("budget", 2, {"budget_month_nanos": 400_000_000}))),
)


def make() -> list[dict[str, Any]]:
    """Create them. Returns each key with the facts that the audit needs."""
    # Models can be imported only once Django is set up.
    from accounts.models import User
    from accounts.services import create_organization
    from billing.ledger import post_credit
    from billing.models import LedgerEntry
    from codexflow.catalogue import directory
    from codexflow.lib.money import parse_usd
    from codexflow.settings import ENV
    from keys.services import KeyTerms, issue_key

    directory.load(ENV.config_path)
    made = []
    for name, plan, credit, keys in _ORGANIZATIONS:
        owner = User.objects.create_user(f"{name.lower()}@chaos.example", None)
        organization = create_organization(name=name, owner=owner, plan=plan)
        terms = organization.account.plan
        if nanos := parse_usd(credit):
            post_credit(organization, nanos, kind=LedgerEntry.Kind.TOP_UP, reference="chaos")
        for key_name, share, limits in keys:
            issued = issue_key(organization, name=key_name, created_by=owner, terms=KeyTerms(**limits))
            made.append(
                {
                    "name": f"{name}/{key_name}",
                    "secret": issued.plain,
                    "key_id": str(issued.row.id),
                    "organization_id": str(organization.id),
                    "margin_bp": terms.margin_bp,
                    "share": share,
                    "daily_requests": limits.get("daily_requests"),
                    "has_budget": terms.has_hard_budget or "budget_month_nanos" in limits,
                }
            )
    return made


if __name__ == "__main__":
    django.setup()
    Path(sys.argv[1]).write_text(json.dumps(make()))
