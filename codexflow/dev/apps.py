"""The development services as a Django app, installed in development only: `manage.py up` and the pages below /dev/."""

from django.apps import AppConfig


class DevConfig(AppConfig):
    name = "codexflow.dev"
    label = "dev"
