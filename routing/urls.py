"""URLs of the playground's pages. Its calls go to the gateway (playground.py), not through Django."""

from django.urls import path

from routing import views

urlpatterns = [
    path("o/<slug:slug>/playground/", views.playground, name="playground"),
    path("o/<slug:slug>/playground/code/", views.code, name="playground-code"),
]
