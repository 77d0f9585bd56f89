"""URLs of the operators' pages below /ops/; the tables behind them follow in codexflow/urls.py."""

from django.urls import path

from adminpanel import views

urlpatterns = [
    path("", views.start, name="ops"),
    path("tables/", views.tables, name="ops-tables"),
    path("customers/", views.customers, name="ops-customers"),
    path("customers/<uuid:organization_id>/", views.customer, name="ops-customer"),
    path("customers/<uuid:organization_id>/suspend/", views.suspend, name="ops-suspend"),
    path("customers/<uuid:organization_id>/reactivate/", views.reactivate, name="ops-reactivate"),
    path("customers/<uuid:organization_id>/view/", views.view_as, name="ops-view-as"),
    path("customers/<uuid:organization_id>/keys/<uuid:key_id>/revoke/", views.key_revoke, name="ops-key-revoke"),
    path("customers/<uuid:organization_id>/keys/<uuid:key_id>/litellm/", views.key_litellm, name="ops-key-litellm"),
    path("customers/<uuid:organization_id>/requests/<uuid:request_id>/", views.request_detail, name="ops-request"),
    path("viewing/end/", views.view_end, name="ops-view-end"),
    path("models/", views.catalogue, name="ops-catalogue"),
    path("models/<int:version_id>/", views.catalogue_version, name="ops-catalogue-version"),
    path("models/<int:version_id>/rollback/", views.catalogue_rollback, name="ops-catalogue-rollback"),
    path("announcements/", views.announcements, name="ops-announcements"),
    path("announcements/<int:announcement_id>/end/", views.announcement_end, name="ops-announcement-end"),
]
