"""URLs of allauth's pages: sign-in and its settings.

Refused: allauth's own list. It has URLs of former versions, and one to which Google's script could post a sign-in.
"""

from importlib import import_module

from allauth.account import urls as account
from allauth.mfa import urls as mfa
from allauth.socialaccount.views import login_cancelled
from allauth.usersessions import urls as usersessions
from django.conf import settings
from django.urls import URLPattern, URLResolver, include, path

from accounts.connections import connections, provider_callback, provider_login
from accounts.reauthentication import recently_authenticated
from accounts.tenancy import signed_in

Patterns = list[URLPattern | URLResolver]

# Pages that add a sign-in method; an address is one, because passwords are reset by it. allauth requires no
# reauthentication there, or only from users with a password or a second factor.
_PROTECTED = {"account_email", "account_set_password", "mfa_activate_totp", "mfa_add_webauthn"}


def _protected(patterns: Patterns) -> Patterns:
    """Return the same routes, with reauthentication required for those named in `_PROTECTED`."""
    found: Patterns = []
    for each in patterns:
        if isinstance(each, URLResolver):
            found.append(URLResolver(each.pattern, _protected(each.url_patterns)))
        elif each.name in _PROTECTED:
            view = signed_in(recently_authenticated(each.callback))
            found.append(URLPattern(each.pattern, view, each.default_args, each.name))
        else:
            found.append(each)
    return found


def _provider(name: str) -> Patterns:
    views = import_module(f"allauth.socialaccount.providers.{name}.views")
    return [
        path(f"{name}/login/", provider_login(views.oauth2_login), name=f"{name}_login"),
        path(f"{name}/login/callback/", provider_callback(views.oauth2_callback), name=f"{name}_callback"),
    ]


# Routed only when at least one provider is configured.
_provider_patterns: Patterns = [
    path("3rdparty/", connections, name="socialaccount_connections"),
    path("3rdparty/login/cancelled/", login_cancelled, name="socialaccount_login_cancelled"),
    *(each for name in settings.SOCIALACCOUNT_PROVIDERS for each in _provider(name)),
]

urlpatterns: Patterns = [
    *_protected(account.urlpatterns),
    path("2fa/", include(_protected(mfa.urlpatterns))),
    path("sessions/", include(usersessions.urlpatterns)),
    *(_provider_patterns if settings.SOCIALACCOUNT_PROVIDERS else []),
]
