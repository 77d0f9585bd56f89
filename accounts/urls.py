"""Pages about the person and the organization itself."""

from django.urls import path

from accounts import views

urlpatterns = [
    path("home/", views.home, name="home"),
    path("settings/", views.profile, name="profile"),
    path("preferences/language/", views.language, name="language"),
    path("preferences/theme/", views.theme, name="theme"),
    path("o/<slug:slug>/settings/", views.organization_settings, name="organization-settings"),
]
