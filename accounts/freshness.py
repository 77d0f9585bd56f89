"""Pages that ask who is there once more, when signing in was long ago."""

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
from accounts.tenancy import PageRequest
from codexflow.lib.clock import now_s

FRESH = timedelta(minutes=30)


def freshly_proved(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Whoever proved to be themselves lately, by signing in or again since; others are asked first.

    Inside `organization_page`: there is somebody, and they may.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        page = cast(PageRequest, request)
        return view(request, *args, **kwargs) if is_fresh(request, page.user) else asked_again(page)

    return guarded


def asked_again(request: PageRequest) -> HttpResponseBase:
    """To the question who is there, and then back here."""
    where = f"{reverse('account_reauthenticate')}?{urlencode({'next': request.get_full_path()})}"
    # A redirect would be followed silently and put the question into a dialog.
    return HttpResponse(headers={"HX-Redirect": where}) if request.htmx else redirect(where)


def is_fresh(request: HttpRequest, user: User) -> bool:
    """Whether the person gave a password, a code or a passkey lately, or came from a provider. Who has none of these
    cannot be asked.

    Signing up gave one too; the session only does not say so.
    """
    since_s = now_s() - FRESH.total_seconds()
    if user.created_at.timestamp() >= since_s or not get_adapter().get_reauthentication_methods(user):
        return True
    return any(record["at"] >= since_s for record in get_authentication_records(request, user))
