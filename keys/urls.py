"""Pages of API keys."""

from django.urls import path

from keys import views

urlpatterns = [
    path("o/<slug:slug>/keys/", views.key_list, name="keys"),
    path("o/<slug:slug>/keys/create/", views.create, name="key-create"),
    path("o/<slug:slug>/keys/<uuid:key_id>/", views.detail, name="key"),
    path("o/<slug:slug>/keys/<uuid:key_id>/edit/", views.edit, name="key-edit"),
    path("o/<slug:slug>/keys/<uuid:key_id>/rotate/", views.rotate, name="key-rotate"),
    path("o/<slug:slug>/keys/<uuid:key_id>/revoke/", views.revoke, name="key-revoke"),
]
