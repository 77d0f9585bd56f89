"""Content of LiteLLM's reports, for organizations that store prompts and responses. All other is dropped unread.

Content that the gateway stored already stays (logs/content/store.py keeps the first of a request). Best effort: a call
whose organization is not known yet when its report arrives is left out.
"""

from collections.abc import Sequence

from accounts.models import Organization
from logs.content.codec import Content, encode, pack
from logs.litellm.mapping import MappedReport, content_of
from logs.litellm.resolve import requests_of


def is_wanted() -> bool:
    """Return whether any organization stores content."""
    return Organization.objects.filter(content_retention_days__gt=0).exists()


def payloads_of(reports: Sequence[MappedReport]) -> list[bytes]:
    """Encode the content of these reports, of organizations that store it, for the content stream."""
    requests = requests_of([each.report for each in reports])
    storing = set(
        Organization.objects.filter(
            pk__in={organization_id for _, organization_id in requests.values()}, content_retention_days__gt=0
        ).values_list("pk", flat=True)
    )
    payloads = []
    for each in reports:
        request_id, organization_id = requests.get(each.report.digest, (None, None))
        if request_id is None or organization_id is None or organization_id not in storing:
            continue
        request, response = content_of(each.row)
        if request or response:
            payloads.append(encode(Content(request_id, organization_id, pack(request), pack(response))))
    return payloads
