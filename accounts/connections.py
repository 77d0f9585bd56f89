"""Social accounts: connecting, disconnecting, signing in and reauthenticating by a provider."""

from collections.abc import Callable
from typing import Any

from allauth.account.internal.flows.login import record_authentication
from allauth.socialaccount import forms, views
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.models import SocialAccount, SocialLogin
from allauth.socialaccount.providers import registry
from allauth.utils import get_request_param
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts.models import User
from accounts.reauthentication import recently_authenticated
from accounts.tenancy import PageRequest, signed_in

View = Callable[[HttpRequest], HttpResponseBase]

# OAuth process for reauthentication, besides allauth's `login` and `connect`. The value is part of URLs.
REAUTHENTICATE = "prove"
# Session key: the time zone that a visitor's browser sent at sign-up.
SIGNUP_TIMEZONE = "signup_timezone"


def connections_of(user: User) -> QuerySet[SocialAccount]:
    """Social accounts by which the user can sign in now: those of configured providers only."""
    rows: QuerySet[SocialAccount] = SocialAccount.objects.filter(user=user)
    return rows.filter(provider__in=settings.SOCIALACCOUNT_PROVIDERS).order_by("pk")


def reauthentication_methods_of(user: User) -> list[dict[str, str]]:
    """Reauthentication methods for allauth's page: one per connected provider."""
    providers = dict.fromkeys(connections_of(user).values_list("provider", flat=True))
    return [
        {
            "id": f"socialaccount:{provider}",
            "description": _("Sign in with %(provider)s again") % {"provider": registry.get_class(provider).name},
            "url": f"{reverse(f'{provider}_login')}?{urlencode({'process': REAUTHENTICATE})}",
        }
        for provider in providers
    ]


def complete_reauthentication(request: HttpRequest, sociallogin: SocialLogin) -> HttpResponse:
    """Record the reauthentication if the provider identified the same user, and redirect."""
    where = sociallogin.get_redirect_url(request) or reverse("home")
    if request.user.is_authenticated and sociallogin.user.pk == request.user.pk:
        account = sociallogin.account
        record_authentication(
            request, request.user, "socialaccount", provider=account.provider, uid=account.uid, reauthenticated=True
        )
        return redirect(where)
    messages.error(request, _("That account is not connected with yours."))
    return redirect(f"{reverse('account_reauthenticate')}?{urlencode({REDIRECT_FIELD_NAME: where})}")


def provider_login(login: View) -> View:
    """Wrap allauth's view that redirects to a provider: GET asks for confirmation, POST redirects.

    Only `process` and `next` of the query are used: otherwise a link could request more OAuth scopes in our name.
    """

    @require_http_methods(["GET", "POST"])
    @never_cache
    def begin(request: HttpRequest) -> HttpResponseBase:
        query = QueryDict(mutable=True)
        query.update({name: request.GET[name] for name in ("process", REDIRECT_FIELD_NAME) if name in request.GET})
        process = get_request_param(request, "process")
        if process == REAUTHENTICATE:
            # In a borrowed browser the provider is signed in as well: make it ask which account.
            query["auth_params"] = "prompt=select_account"
        request.GET = query  # type: ignore[assignment] # not changed from here on
        if request.method == "POST" and not request.user.is_authenticated:
            request.session[SIGNUP_TIMEZONE] = request.POST.get("timezone", "")[:64]
        if process == "connect":
            return signed_in(recently_authenticated(login))(request)
        return signed_in(login)(request) if process == REAUTHENTICATE else login(request)

    return begin


def provider_callback(callback: View) -> View:
    """Wrap allauth's OAuth callback.

    Removes code and state from the request once they are parsed: logs and error pages quote URLs.
    """

    @never_cache
    def back(request: HttpRequest) -> HttpResponseBase:
        request.GET = request.GET.copy()  # type: ignore[assignment] # parsed now
        request.META["QUERY_STRING"] = ""
        return callback(request)

    return back


@signed_in
@require_http_methods(["GET", "POST"])
@never_cache
@recently_authenticated
def connections(request: PageRequest) -> HttpResponseBase:
    """Page of connected and available providers, with disconnecting."""
    with transaction.atomic():
        # Lock the user: two simultaneous disconnects would each count the other as the last sign-in method.
        User.objects.select_for_update(no_key=True).get(pk=request.user.pk)
        response: HttpResponseBase = views.connections(request)
    return response


class DisconnectForm(forms.DisconnectForm):  # type: ignore[misc] # allauth has no types
    """Disconnects social accounts of configured providers: allauth could not name the others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.accounts = self.fields["account"].queryset = connections_of(self.request.user)

    def rows(self) -> list[SocialAccount]:
        return list(self.accounts)

    def providers(self) -> list[Any]:
        """Configured providers that the user has not connected."""
        there = {account.provider for account in self.accounts}
        return [each for each in get_adapter().list_providers(self.request) if each.id not in there]
