"""Pages of API keys."""

from django.urls import path

from keys import views
from keys.money import views as money

urlpatterns = [
    path("o/<slug:slug>/billing/raises/", money.raises, name="budget-raises"),
    path("o/<slug:slug>/billing/raises/new/", money.raise_new, name="budget-raise"),
    path("o/<slug:slug>/billing/raises/<int:raise_id>/end/", money.raise_end, name="budget-raise-end"),
    path("o/<slug:slug>/keys/", views.key_list, name="keys"),
    path("o/<slug:slug>/keys/named/", views.named, name="keys-named"),
    path("o/<slug:slug>/keys/create/", views.create, name="key-create"),
    path("o/<slug:slug>/keys/<uuid:key_id>/", views.detail, name="key"),
    path("o/<slug:slug>/keys/<uuid:key_id>/edit/", views.edit, name="key-edit"),
    path("o/<slug:slug>/keys/<uuid:key_id>/rotate/", views.rotate, name="key-rotate"),
    path("o/<slug:slug>/keys/<uuid:key_id>/revoke/", views.revoke, name="key-revoke"),
]
