"""Reauthentication: protects sensitive pages when the user signed in long ago."""

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, cast

from allauth.account.adapter import get_adapter
from allauth.account.authentication import get_authentication_records
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode

from accounts.models import User
from accounts.tenancy import PageRequest, return_path
from codexflow.lib.clock import now_s

MAX_AGE = timedelta(minutes=30)


def recently_authenticated(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Require that the user signed in or reauthenticated within MAX_AGE; otherwise redirect to do so.

    Apply inside `organization_page` or `signed_in`, which check that there is a user and that they may see the page.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        page = cast(PageRequest, request)
        if not is_recently_authenticated(request, page.user):
            return reauthentication_redirect(page)
        return view(request, *args, **kwargs)

    return guarded


def reauthentication_redirect(request: PageRequest) -> HttpResponseBase:
    """Redirect to the reauthentication page, which returns to this URL."""
    where = f"{reverse('account_reauthenticate')}?{urlencode({'next': return_path(request)})}"
    # htmx would follow a redirect and put the page into a dialog.
    return HttpResponse(headers={"HX-Redirect": where}) if request.htmx else redirect(where)


def is_recently_authenticated(request: HttpRequest, user: User) -> bool:
    """Return whether the user authenticated within MAX_AGE, by password, code, passkey or provider.

    Also true for a user who signed up within MAX_AGE (the session does not record that), and for one without any
    method to reauthenticate by.
    """
    since_s = now_s() - MAX_AGE.total_seconds()
    if user.created_at.timestamp() >= since_s or not get_adapter().get_reauthentication_methods(user):
        return True
    return any(record["at"] >= since_s for record in get_authentication_records(request, user))
