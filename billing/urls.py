"""Pages of billing."""

from django.urls import path

from billing import views

urlpatterns = [
    path("o/<slug:slug>/billing/", views.billing, name="billing"),
    path("o/<slug:slug>/billing/budgets/", views.budgets, name="billing-budgets"),
]
