"""Routes of everything that Django serves; `/v1/*` and `/health*` never get here (see asgi.py).

The management API is below `/api/`; pages are everywhere else.
"""

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularJSONAPIView

from codexflow.lib.admin import site
from codexflow.pages import account, doc_search, docs, doctor, generated, legal, llms, reference, robots, status, views
from keys.api import BudgetsView, KeyRotationView, KeysView, KeyView
from keys.leak_api import LeakedKeysView
from keys.money import account as account_money
from keys.money import operator_api
from keys.money.budgets import RaisesView, RaiseView, TagBudgetsView, TagsView
from logs.exports.api import ExportCancelView, ExportDownloadView, ExportsView, ExportView
from logs.litellm.api import ReconciliationView
from logs.margin.api import MarginView
from logs.refusals.api import RefusalsView
from logs.requests.api import RequestContentView, RequestsView, RequestView
from logs.usage.api import UsageView

# Only the web needs the operators' pages; workers and commands do without.
admin.autodiscover()

# The management API describes itself: GET /api/v1/schema.
api: list[URLPattern | URLResolver] = [
    path("api/v1/schema", SpectacularJSONAPIView.as_view(), name="api-schema"),
    path("api/v1/keys", KeysView.as_view(), name="api-keys"),
    path("api/v1/keys/<uuid:key_id>", KeyView.as_view(), name="api-key"),
    path("api/v1/keys/<uuid:key_id>/rotate", KeyRotationView.as_view(), name="api-key-rotate"),
    path("api/v1/leaked-keys", LeakedKeysView.as_view(), name="api-leaked-keys"),
    path("api/v1/budgets", BudgetsView.as_view(), name="api-budgets"),
    path("api/v1/budgets/tags", TagBudgetsView.as_view(), name="api-tag-budgets"),
    path("api/v1/budgets/raises", RaisesView.as_view(), name="api-budget-raises"),
    path("api/v1/budgets/raises/<int:raise_id>", RaiseView.as_view(), name="api-budget-raise"),
    path("api/v1/balance", account_money.BalanceView.as_view(), name="api-balance"),
    path("api/v1/ledger", account_money.LedgerView.as_view(), name="api-ledger"),
    path("api/v1/orders", account_money.OrdersView.as_view(), name="api-orders"),
    path("api/v1/orders/<slug:code>", account_money.OrderView.as_view(), name="api-order"),
    path("api/v1/invoices", account_money.InvoicesView.as_view(), name="api-invoices"),
    path("api/v1/invoices/<slug:number>", account_money.InvoiceView.as_view(), name="api-invoice"),
    path("api/v1/operator/grants", operator_api.GrantsView.as_view(), name="api-operator-grants"),
    path("api/v1/operator/adjustments", operator_api.AdjustmentsView.as_view(), name="api-operator-adjustments"),
    path("api/v1/operator/payments", operator_api.PaymentsView.as_view(), name="api-operator-payments"),
    path("api/v1/operator/refunds", operator_api.RefundsView.as_view(), name="api-operator-refunds"),
    path("api/v1/tags", TagsView.as_view(), name="api-tags"),
    path("api/v1/requests", RequestsView.as_view(), name="api-requests"),
    path("api/v1/reconciliation", ReconciliationView.as_view(), name="api-reconciliation"),
    path("api/v1/refusals", RefusalsView.as_view(), name="api-refusals"),
    path("api/v1/margin", MarginView.as_view(), name="api-margin"),
    path("api/v1/usage", UsageView.as_view(), name="api-usage"),
    path("api/v1/requests/<uuid:request_id>", RequestView.as_view(), name="api-request"),
    path("api/v1/requests/<uuid:request_id>/content", RequestContentView.as_view(), name="api-request-content"),
    path("api/v1/exports", ExportsView.as_view(), name="api-exports"),
    path("api/v1/exports/<uuid:export_id>", ExportView.as_view(), name="api-export"),
    path("api/v1/exports/<uuid:export_id>/cancel", ExportCancelView.as_view(), name="api-export-cancel"),
    path("api/v1/exports/<uuid:export_id>/download", ExportDownloadView.as_view(), name="api-export-download"),
]

pages: list[URLPattern | URLResolver] = [
    path("", views.landing, name="landing"),
    path("pricing/", views.pricing, name="pricing"),
    path("docs/", docs.quickstart, name="docs"),
    path("docs/reference/", reference.reference, name="docs-reference"),
    path("docs/quickstart.md", generated.quickstart, name="docs-quickstart-source"),
    path("docs/reference.md", generated.reference, name="docs-reference-source"),
    path("docs/search/", doc_search.search, name="docs-search"),
    path("docs/<path:address>.md", docs.source, name="docs-source"),
    path("docs/<path:address>/", docs.page, name="docs-page"),
    path("llms.txt", llms.index, name="llms"),
    path("llms-full.txt", llms.full, name="llms-full"),
    path("doctor/", doctor.page, name="doctor"),
    path("doctor.sh", doctor.script, name="doctor-script"),
    path("status/", status.status, name="status"),
    path("robots.txt", robots.robots, name="robots"),
    path("sitemap.xml", robots.sitemap, name="sitemap"),
    path("terms/", legal.terms, name="terms"),
    path("privacy/", legal.privacy, name="privacy"),
    path("settings/export/", account.export, name="account-export"),
    path("", include("accounts.urls")),
    path("", include("logs.urls")),
    path("", include("keys.urls")),
    path("", include("billing.urls")),
    path("", include("routing.urls")),
    path("accounts/", include("accounts.allauth_urls")),
    path("ops/", include("adminpanel.urls")),
    path("ops/", site.urls),
    *(path("dev/", include(module)) for module in settings.DEVELOPMENT_URLS),
]

urlpatterns = [*api, *pages]

handler404 = "codexflow.pages.errors.not_found"
handler429 = "codexflow.pages.errors.too_many"  # asked for by allauth
handler400 = "codexflow.pages.errors.bad_request"
handler500 = "codexflow.pages.errors.failed"
