"""Pages of usage."""

from django.urls import path

from logs import views

urlpatterns = [
    path("o/<slug:slug>/", views.overview, name="overview"),
    path("o/<slug:slug>/logs/", views.log, name="log"),
    path("o/<slug:slug>/logs/<uuid:request_id>/", views.detail, name="request"),
]
