"""allauth's pages: signing in, and what people change about how they do.

Not allauth's own list: it has addresses of former versions, and one where Google's script could post people in.
"""

from importlib import import_module

from allauth.account import urls as account
from allauth.mfa import urls as mfa
from allauth.socialaccount.views import login_cancelled
from allauth.usersessions import urls as usersessions
from django.conf import settings
from django.urls import URLPattern, URLResolver, include, path

from accounts.connections import beginning, connections, returning
from accounts.freshness import freshly_proved
from accounts.tenancy import signed_in

Patterns = list[URLPattern | URLResolver]

# Pages that add a way in; an address is one, because passwords are reset by it. allauth asks nobody there, or only
# those who have a password or a second factor.
_FRESH = {"account_email", "account_set_password", "mfa_activate_totp", "mfa_add_webauthn"}


def _fresh(patterns: Patterns) -> Patterns:
    """The same routes, those of `_FRESH` behind the question."""
    found: Patterns = []
    for each in patterns:
        if isinstance(each, URLResolver):
            found.append(URLResolver(each.pattern, _fresh(each.url_patterns)))
        elif each.name in _FRESH:
            view = signed_in(freshly_proved(each.callback))
            found.append(URLPattern(each.pattern, view, each.default_args, each.name))
        else:
            found.append(each)
    return found


def _provider(name: str) -> Patterns:
    views = import_module(f"allauth.socialaccount.providers.{name}.views")
    return [
        path(f"{name}/login/", beginning(views.oauth2_login), name=f"{name}_login"),
        path(f"{name}/login/callback/", returning(views.oauth2_callback), name=f"{name}_callback"),
    ]


# Without a provider none of these is there.
_elsewhere: Patterns = [
    path("3rdparty/", connections, name="socialaccount_connections"),
    path("3rdparty/login/cancelled/", login_cancelled, name="socialaccount_login_cancelled"),
    *(each for name in settings.SOCIALACCOUNT_PROVIDERS for each in _provider(name)),
]

urlpatterns: Patterns = [
    *_fresh(account.urlpatterns),
    path("2fa/", include(_fresh(mfa.urlpatterns))),
    path("sessions/", include(usersessions.urlpatterns)),
    *(_elsewhere if settings.SOCIALACCOUNT_PROVIDERS else []),
]
