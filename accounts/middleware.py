"""Middleware: the user's language and time zone; forced change of an initial password."""

import zoneinfo
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone, translation

from accounts.models import User

GetResponse = Callable[[HttpRequest], HttpResponse]


class PreferencesMiddleware:
    """Activates the signed-in user's language and time zone. Visitors get the browser's language, and UTC."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        user = request.user
        if not user.is_authenticated:
            return self.get_response(request)
        if not user.must_change_password:  # whoever set the password has chosen no language: the browser's holds
            translation.activate(user.language)
            request.LANGUAGE_CODE = user.language
        with timezone.override(timezone_of(user)):
            return self.get_response(request)


def timezone_of(user: User) -> zoneinfo.ZoneInfo:
    """Time zone of a user; UTC if this machine does not know it."""
    try:
        return zoneinfo.ZoneInfo(user.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return zoneinfo.ZoneInfo("UTC")


class PasswordChangeMiddleware:
    """Redirects users with `must_change_password` to the password change: others have seen their password."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated and request.user.must_change_password:
            change = reverse("account_change_password")
            open_paths = (change, reverse("account_logout"), reverse("account_reauthenticate"), reverse("language"))
            if request.path not in open_paths and not request.path.startswith(("/static/", "/api/")):
                return redirect(change)
        return self.get_response(request)
