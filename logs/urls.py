"""Pages of requests, usage and exports."""

from django.urls import path

from logs.exports import views as exports
from logs.requests import views
from logs.usage.views import overview

urlpatterns = [
    path("o/<slug:slug>/", overview, name="overview"),
    path("o/<slug:slug>/logs/", views.log, name="log"),
    path("o/<slug:slug>/logs/exports/", exports.export_list, name="exports"),
    path("o/<slug:slug>/logs/exports/new/", exports.export_new, name="export-new"),
    path("o/<slug:slug>/logs/exports/<uuid:export_id>/", exports.export, name="export"),
    path("o/<slug:slug>/logs/exports/<uuid:export_id>/cancel/", exports.export_cancel, name="export-cancel"),
    path("o/<slug:slug>/logs/<uuid:request_id>/", views.detail, name="request"),
    path("o/<slug:slug>/logs/<uuid:request_id>/content/", views.content, name="request-content"),
    path("o/<slug:slug>/logs/<uuid:request_id>/stage/", views.stage_verdict, name="request-stage"),
]
