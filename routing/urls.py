"""The playground's pages. What it sends goes to the gateway (playground.py), not through Django."""

from django.urls import path

from routing import views

urlpatterns = [
    path("o/<slug:slug>/playground/", views.playground, name="playground"),
    path("o/<slug:slug>/playground/code/", views.code, name="playground-code"),
]
