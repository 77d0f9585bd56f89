"""Accounts elsewhere by which people sign in here: where the way there begins, and where it is taken back."""

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

from accounts.freshness import freshly_proved
from accounts.models import User
from accounts.tenancy import PageRequest, signed_in

View = Callable[[HttpRequest], HttpResponseBase]

# What somebody comes back from a provider for, besides allauth's `login` and `connect`: to show who they are once more.
PROVE = "prove"
# In the session of a visitor: the time zone that their browser named.
ZONE = "signup_timezone"


def connections_of(user: User) -> QuerySet[SocialAccount]:
    """The accounts elsewhere by which the person can sign in now: providers come and go with the settings."""
    rows: QuerySet[SocialAccount] = SocialAccount.objects.filter(user=user)
    return rows.filter(provider__in=settings.SOCIALACCOUNT_PROVIDERS).order_by("pk")


def proofs_of(user: User) -> list[dict[str, str]]:
    """For allauth's page that asks who is there: one way for each connected provider."""
    providers = dict.fromkeys(connections_of(user).values_list("provider", flat=True))
    return [
        {
            "id": f"socialaccount:{provider}",
            "description": _("Sign in with %(provider)s again") % {"provider": registry.get_class(provider).name},
            "url": f"{reverse(f'{provider}_login')}?{urlencode({'process': PROVE})}",
        }
        for provider in providers
    ]


def proved(request: HttpRequest, sociallogin: SocialLogin) -> HttpResponse:
    """Back from the provider: the session goes on, a little fresher, when it is the same person."""
    where = sociallogin.get_redirect_url(request) or reverse("home")
    if request.user.is_authenticated and sociallogin.user.pk == request.user.pk:
        account = sociallogin.account
        record_authentication(
            request, request.user, "socialaccount", provider=account.provider, uid=account.uid, reauthenticated=True
        )
        return redirect(where)
    messages.error(request, _("That account is not connected with yours."))
    return redirect(f"{reverse('account_reauthenticate')}?{urlencode({REDIRECT_FIELD_NAME: where})}")


def beginning(login: View) -> View:
    """allauth's view that sends people to a provider: asks first on GET, and sends on POST.

    Of what an address may say only the purpose and the way back count: otherwise a link could ask the provider for more
    rights than we need, in our name.
    """

    @require_http_methods(["GET", "POST"])
    @never_cache
    def begin(request: HttpRequest) -> HttpResponseBase:
        query = QueryDict(mutable=True)
        query.update({name: request.GET[name] for name in ("process", REDIRECT_FIELD_NAME) if name in request.GET})
        process = get_request_param(request, "process")
        if process == PROVE:
            # Whoever borrows the browser finds the provider signed in as well: let it ask which account.
            query["auth_params"] = "prompt=select_account"
        request.GET = query  # type: ignore[assignment] # it is not changed from here on
        if request.method == "POST" and not request.user.is_authenticated:
            request.session[ZONE] = request.POST.get("timezone", "")[:64]
        if process == "connect":
            return signed_in(freshly_proved(login))(request)
        return signed_in(login)(request) if process == PROVE else login(request)

    return begin


def returning(callback: View) -> View:
    """allauth's view that people come back to.

    Code and state are read, and then forgotten: logs quote addresses, and so do the forms of a page that refuses.
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
@freshly_proved
def connections(request: PageRequest) -> HttpResponseBase:
    """What is connected, what could be, and how it is taken back."""
    with transaction.atomic():
        # The person's row is the queue: two at once would each leave the other as the last way in.
        User.objects.select_for_update(no_key=True).get(pk=request.user.pk)
        response: HttpResponseBase = views.connections(request)
    return response


class DisconnectForm(forms.DisconnectForm):  # type: ignore[misc] # allauth has no types
    """Only of providers that are there: allauth could not even name the others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.accounts = self.fields["account"].queryset = connections_of(self.request.user)

    def rows(self) -> list[SocialAccount]:
        return list(self.accounts)

    def providers(self) -> list[Any]:
        """Those that the person is not connected with yet."""
        there = {account.provider for account in self.accounts}
        return [each for each in get_adapter().list_providers(self.request) if each.id not in there]
