"""Pages of requests, usage and exports."""

from django.urls import path

from logs.exports import views as exports
from logs.refusals.views import refused
from logs.requests import views
from logs.saved_views import views as saved_views
from logs.usage.views import overview, usage_csv

urlpatterns = [
    path("o/<slug:slug>/", overview, name="overview"),
    path("o/<slug:slug>/usage/<slug:table>.csv", usage_csv, name="usage-csv"),
    path("o/<slug:slug>/logs/", views.log, name="log"),
    path("o/<slug:slug>/logs/suggestions/", views.suggestions, name="log-suggestions"),
    path("o/<slug:slug>/logs/views/new/", saved_views.view_new, name="view-new"),
    path("o/<slug:slug>/logs/views/<uuid:view_id>/", saved_views.view_edit, name="view-edit"),
    path("o/<slug:slug>/logs/views/<uuid:view_id>/delete/", saved_views.view_delete, name="view-delete"),
    path("o/<slug:slug>/logs/refused/", refused, name="refused"),
    path("o/<slug:slug>/logs/exports/", exports.export_list, name="exports"),
    path("o/<slug:slug>/logs/exports/new/", exports.export_new, name="export-new"),
    path("o/<slug:slug>/logs/exports/<uuid:export_id>/", exports.export, name="export"),
    path("o/<slug:slug>/logs/exports/<uuid:export_id>/cancel/", exports.export_cancel, name="export-cancel"),
    path("o/<slug:slug>/logs/<uuid:request_id>/", views.detail, name="request"),
    path("o/<slug:slug>/logs/<uuid:request_id>/content/", views.content, name="request-content"),
    path("o/<slug:slug>/logs/<uuid:request_id>/stage/", views.stage_verdict, name="request-stage"),
]
