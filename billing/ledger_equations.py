"""Equations of the ledger, and what violates them. SQL for any cursor: the audit of random incidents uses it, too."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from typing_extensions import override


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Two amounts that should be equal, in nano-USD. `about` names the row: an organization, a source, an entry."""

    check: str
    organization: str
    about: str
    expected_nanos: int
    found_nanos: int

    @override
    def __str__(self) -> str:
        return (
            f"{self.check}: organization {self.organization}, {self.about}:"
            f" {self.found_nanos} instead of {self.expected_nanos} nano-USD"
        )


# Each selects: organization, what it is about, the amount by the entries, the amount that is stored.
_CHECKS = {
    "credit is the sum of entries that are not usage": """
        SELECT account.organization_id, 'account', coalesce(sum(entry.amount_nanos), 0), account.credit_nanos
        FROM billing_account AS account LEFT JOIN billing_ledgerentry AS entry
            ON entry.organization_id = account.organization_id AND entry.request_id IS NULL
        GROUP BY account.organization_id HAVING coalesce(sum(entry.amount_nanos), 0) <> account.credit_nanos
    """,
    "spent is the sum of entries of requests": """
        SELECT account.organization_id, 'account', -coalesce(sum(entry.amount_nanos), 0), account.spent_nanos
        FROM billing_account AS account LEFT JOIN billing_ledgerentry AS entry
            ON entry.organization_id = account.organization_id AND entry.request_id IS NOT NULL
        GROUP BY account.organization_id HAVING -coalesce(sum(entry.amount_nanos), 0) <> account.spent_nanos
    """,
    "an entry is the sum of its parts": """
        SELECT organization_id, 'entry ' || id, amount_nanos, paid FROM (
            SELECT entry.id, entry.organization_id, entry.amount_nanos,
                (SELECT coalesce(sum(value::bigint), 0) FROM jsonb_each_text(entry.parts)) AS paid
            FROM billing_ledgerentry AS entry
            WHERE entry.parts <> '{}' OR entry.id > (SELECT min(id) FROM billing_ledgerentry WHERE parts <> '{}')
        ) AS entries WHERE amount_nanos <> paid
    """,
    "a source has what its parts leave": """
        SELECT source.organization_id, 'source ' || source.id, source.carried_nanos + coalesce(moved.nanos, 0),
            source.remaining_nanos
        FROM billing_creditsource AS source LEFT JOIN (
            SELECT part.key::bigint AS id, sum(part.value::bigint) AS nanos
            FROM billing_ledgerentry, jsonb_each_text(parts) AS part GROUP BY part.key
        ) AS moved ON moved.id = source.id
        WHERE source.carried_nanos + coalesce(moved.nanos, 0) <> source.remaining_nanos
    """,
    "a balance is what the sources have without the debt": """
        SELECT account.organization_id, 'account', account.credit_nanos - account.spent_nanos,
            sources.nanos + debt.nanos
        FROM billing_account AS account
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(remaining_nanos), 0) AS nanos FROM billing_creditsource AS source
            WHERE source.organization_id = account.organization_id
        ) AS sources
        CROSS JOIN LATERAL (
            SELECT coalesce(sum((parts ->> '0')::bigint), 0) AS nanos,
                bool_and(parts <> '{}' OR amount_nanos = 0) AS is_all
            FROM billing_ledgerentry AS entry WHERE entry.organization_id = account.organization_id
        ) AS debt
        WHERE debt.is_all AND account.credit_nanos - account.spent_nanos <> sources.nanos + debt.nanos
    """,
    "daily spend is the sum of the keys' entries": """
        SELECT coalesce(spend.organization_id, entry.organization_id), 'key ' || coalesce(spend.key_id, entry.key_id),
            coalesce(entry.nanos, 0), coalesce(spend.nanos, 0)
        FROM (
            SELECT organization_id, key_id, day, sum(cost_nanos) AS nanos FROM billing_spend_daily
            GROUP BY organization_id, key_id, day
        ) AS spend FULL JOIN (
            SELECT organization_id, key_id, day, -sum(amount_nanos) AS nanos FROM billing_ledgerentry
            WHERE request_id IS NOT NULL GROUP BY organization_id, key_id, day
        ) AS entry USING (organization_id, key_id, day)
        WHERE coalesce(entry.nanos, 0) <> coalesce(spend.nanos, 0)
    """,
    "daily spend by tag is the sum of the tags' entries": """
        SELECT coalesce(spend.organization_id, entry.organization_id), 'tag ' || coalesce(spend.tag, entry.tag),
            coalesce(entry.nanos, 0), coalesce(spend.nanos, 0)
        FROM (
            SELECT organization_id, tag, day, sum(cost_nanos) AS nanos FROM billing_tag_spend_daily
            GROUP BY organization_id, tag, day
        ) AS spend FULL JOIN (
            SELECT organization_id, tag, day, -sum(amount_nanos) AS nanos FROM billing_ledgerentry
            WHERE tag IS NOT NULL GROUP BY organization_id, tag, day
        ) AS entry USING (organization_id, tag, day)
        WHERE coalesce(entry.nanos, 0) <> coalesce(spend.nanos, 0)
    """,
}


def findings_in(cursor: Any) -> Iterator[Finding]:
    """Iterate over everything that disagrees. The caller's transaction must be a snapshot."""
    for check, query in _CHECKS.items():
        cursor.execute(query)
        for organization, about, expected, found in cursor.fetchall():
            yield Finding(
                check=check,
                organization=str(organization),
                about=about,
                expected_nanos=int(expected),
                found_nanos=int(found),
            )
