from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from codexflow.lib.isolation import CLOSED, OWN


class LogsConfig(AppConfig):
    name = "logs"
    verbose_name = _("Logs")
    default_auto_field = "django.db.models.BigAutoField"
    tenant_tables = {
        "export_job": OWN,
        "litellm_identity": CLOSED,
        "litellm_reconciled": CLOSED,
        "litellm_sync_run": CLOSED,
        "litellm_unmatched": CLOSED,
        "margin_daily": CLOSED,
        "model_end_notice": CLOSED,
        "refusal_count": OWN,
        "request_content": OWN,
        "request_log": OWN,
        "saved_view": OWN,
        "stage_verdict": OWN,
        "upstream_attempt": "EXISTS (SELECT FROM request_log log WHERE log.request_id = upstream_attempt.request_id)",
        "usage_daily": OWN,
        "usage_dead_letter": CLOSED,
        "usage_hourly": OWN,
    }
    audit_actions = {
        "dead_letter.retried": _("Dead letter stored again"),
        "export.cancelled": _("Export cancelled"),
        "export.deleted": _("Export deleted"),
        "export.downloaded": _("Export downloaded"),
        "export.requested": _("Export requested"),
        "reports.mapped": _("Reports mapped to a key"),
    }
    audit_areas = {"export": _("Exports"), "reports": _("LiteLLM reports"), "dead_letter": _("Dead letters")}
