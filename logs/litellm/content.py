"""Prompts and answers that LiteLLM tells, for organizations that want them kept. All others' are dropped unread.

What the gateway has kept already stays as it is (logs/content/store.py takes the first of a request). Best effort: a
call whose organization is not known yet when its report comes is left out.
"""

from collections.abc import Sequence

from accounts.models import Organization
from logs.content.codec import Content, encode, pack
from logs.litellm.mapping import Fields, content_of
from logs.litellm.report import Report
from logs.litellm.resolve import requests_of


def is_any_kept() -> bool:
    """Whether any organization wants any of this."""
    return Organization.objects.filter(content_retention_days__gt=0).exists()


def wanted(told: Sequence[tuple[Report, Fields]]) -> list[bytes]:
    """What of these goes to the worker, encoded."""
    whose = requests_of([report for report, _ in told])
    keeping = set(
        Organization.objects.filter(
            pk__in={organization for _, organization in whose.values()}, content_retention_days__gt=0
        ).values_list("pk", flat=True)
    )
    found = []
    for report, row in told:
        request_id, organization_id = whose.get(report.digest, (None, None))
        if request_id is None or organization_id is None or organization_id not in keeping:
            continue
        request, answer = content_of(row)
        if request or answer:
            found.append(encode(Content(request_id, organization_id, pack(request), pack(answer))))
    return found
