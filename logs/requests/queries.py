"""Query parameters of the request log in the management API."""

from datetime import UTC, timedelta
from typing import Any

from rest_framework import serializers

from accounts.models import Organization
from billing.selectors import retention_days_of
from codexflow.lib.clock import now
from codexflow.lib.errors import BadRequest
from logs.models import RequestLog
from logs.pipeline.retention import kept_since
from logs.requests.conditions import conditions_of
from logs.requests.selectors import Filters
from logs.requests.sentences import english_sentence_of, names_of
from logs.requests.terms import MAX_TEXT, BadSearch, parse

DEFAULT_DAYS = 7


class FilterQuery(serializers.Serializer[Any]):
    """Filters of requests. Times are ISO 8601; without a zone they are UTC."""

    start = serializers.DateTimeField(
        required=False, default_timezone=UTC, help_text="Default: seven days before the end."
    )
    end = serializers.DateTimeField(required=False, default_timezone=UTC, help_text="Default: now.")
    stage = serializers.CharField(required=False, max_length=20)
    model = serializers.CharField(required=False, max_length=200)
    status = serializers.RegexField(r"^(ok|errors|[1-5]\d\d)$", required=False, help_text="ok, errors or a status.")
    error_code = serializers.CharField(required=False, max_length=100)
    key = serializers.UUIDField(required=False)
    user = serializers.IntegerField(
        required=False, min_value=1, max_value=2**63 - 1, help_text="`user_id` of the key's creator."
    )
    surface = serializers.CharField(required=False, max_length=40, help_text="chat, messages, responses, …")
    stream = serializers.BooleanField(required=False, allow_null=True, default=None)
    source = serializers.ChoiceField(RequestLog.Source.choices, required=False)  # type: ignore[assignment] # a field
    tag = serializers.CharField(required=False, max_length=64, help_text="The caller's own, in whole.")
    planned = serializers.BooleanField(
        required=False, allow_null=True, default=None, help_text="true: only requests answered in parts."
    )
    id = serializers.RegexField(
        r"^[0-9a-fA-F-]{1,36}$",
        required=False,
        help_text="Any part of the request id; a beginning finds it whatever the times.",
    )

    q = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=MAX_TEXT,
        help_text="A search as on the log's page: `status:5xx model:a,b -tag:x cost:>0.01`.",
    )

    def filters(self, organization: Organization) -> Filters:
        """Return the filters, no further back than the plan's retention. Raises BadRequest."""
        wanted = self.validated_data
        oldest = kept_since(now(), retention_days_of(organization))
        # Nothing is newer, and the calendar has an end.
        end = min(wanted.get("end", now() + timedelta(minutes=1)), now() + timedelta(days=1))
        start = wanted.get("start", max(end, oldest) - timedelta(days=DEFAULT_DAYS))
        if "start" in wanted and "end" in wanted and wanted["end"] < start:
            raise BadRequest("The end lies before the start.", param="end")
        try:
            conditions = conditions_of(parse(wanted.get("q", "")), lambda: names_of(organization))
        except BadSearch as problem:
            raise BadRequest(english_sentence_of(problem), param="q") from problem
        found = Filters(
            start=max(start, oldest),
            end=end,
            stage=wanted.get("stage", ""),
            model=wanted.get("model", ""),
            status=wanted.get("status", ""),
            error_code=wanted.get("error_code", ""),
            key_id=wanted.get("key"),
            user_id=wanted.get("user"),
            surface=wanted.get("surface", ""),
            is_stream=wanted.get("stream"),
            source=wanted.get("source", ""),
            tag=wanted.get("tag", ""),
            is_planned=bool(wanted.get("planned")),
            id_part=wanted.get("id", ""),
        )
        return found.narrowed(conditions).around_id(oldest)
