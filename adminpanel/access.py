"""Access to the operators' pages."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponseBase

from accounts.tenancy import PageRequest, View, signed_in
from codexflow.lib.admin import to_second_factor


def operator_page(perm: str = "", *, section: str) -> Callable[[View[...]], Callable[..., HttpResponseBase]]:
    """Restrict a page to operators, with the permission `perm` if one is named.

    Users who are none get 404. `section` is the menu entry that is lit while the page is shown.
    """

    def decorate(view: View[...]) -> Callable[..., HttpResponseBase]:
        @signed_in
        @wraps(view)
        def guarded(request: PageRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            user = request.user
            if not user.is_staff:
                raise Http404
            if settings.OPERATORS_NEED_SECOND_FACTOR and not is_mfa_enabled(user):
                return to_second_factor(request)
            if perm and not user.has_perm(perm):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        guarded.section = section  # type: ignore[attr-defined]
        return guarded

    return decorate
