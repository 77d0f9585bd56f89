"""Pages of billing."""

from django.urls import path

from billing import views, webhooks
from billing.budgets import views as budgets
from billing.papers import views as papers

urlpatterns = [
    path("o/<slug:slug>/billing/", views.billing, name="billing"),
    path("o/<slug:slug>/billing/budgets/", views.budgets, name="billing-budgets"),
    path("o/<slug:slug>/billing/tags/", budgets.tags, name="tags"),
    path("o/<slug:slug>/billing/tags/budget/", budgets.tag_budget, name="tag-budget"),
    path("o/<slug:slug>/billing/credit/", views.credit_order, name="credit-order"),
    path("o/<slug:slug>/billing/card/", views.card, name="card"),
    path("o/<slug:slug>/billing/card/remove/", views.card_remove, name="card-remove"),
    path("o/<slug:slug>/billing/card/renewals/", views.card_renewals, name="card-renewals"),
    path("o/<slug:slug>/billing/code/", views.redeem_code, name="redeem-code"),
    path("o/<slug:slug>/billing/details/", papers.details, name="billing-details"),
    path("o/<slug:slug>/billing/invoices/", papers.paper_list, name="papers"),
    path("o/<slug:slug>/billing/invoices/<slug:number>/", papers.paper, name="paper"),
    path("o/<slug:slug>/billing/invoices/<slug:number>/csv/", papers.paper_csv, name="paper-csv"),
    path("o/<slug:slug>/billing/invoices/<slug:number>/pdf/", papers.paper_pdf, name="paper-pdf"),
    path("o/<slug:slug>/billing/invoices/<slug:number>/ubl/", papers.paper_ubl, name="paper-ubl"),
    path("o/<slug:slug>/billing/statements/<slug:month>/", papers.statement, name="statement"),
    path("o/<slug:slug>/billing/statements/<slug:month>/csv/", papers.statement_csv, name="statement-csv"),
    path("o/<slug:slug>/billing/statements/<slug:month>/pdf/", papers.statement_pdf, name="statement-pdf"),
    path("o/<slug:slug>/billing/recharge/", views.recharge, name="recharge"),
    path("o/<slug:slug>/billing/recharge/off/", views.recharge_off, name="recharge-off"),
    path("o/<slug:slug>/billing/plan/", views.plan_order, name="plan-order"),
    path("o/<slug:slug>/billing/trial/", views.trial, name="trial"),
    path("o/<slug:slug>/billing/renewal/", views.renewal, name="plan-renewal"),
    path("o/<slug:slug>/billing/orders/<slug:code>/", views.order, name="order"),
    path("o/<slug:slug>/billing/orders/<slug:code>/cancel/", views.order_cancel, name="order-cancel"),
    path("o/<slug:slug>/billing/orders/<slug:code>/pay/", views.order_pay, name="order-pay"),
    path("api/webhooks/iyzico", webhooks.payment_event, {"provider_name": "iyzico"}, name="iyzico-event"),
    path("api/webhooks/iyzico/return", webhooks.checkout_return, {"provider_name": "iyzico"}, name="iyzico-return"),
    path("api/webhooks/stripe", webhooks.payment_event, {"provider_name": "stripe"}, name="payment-event"),
]
