"""Admin site of operators under /ops/ and base classes of its pages.

Permissions come from `User.has_perm`: a super administrator may edit, an administrator may view.
"""

from functools import wraps
from typing import Any, TypeVar

from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.formats import number_format
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from typing_extensions import override
from unfold.admin import ModelAdmin
from unfold.sites import UnfoldAdminSite

from codexflow.lib.money import format_usd

M = TypeVar("M", bound=Model)


def to_second_factor(request: HttpRequest) -> HttpResponse:
    """Redirect an operator to the page where a second factor is set up."""
    messages.warning(request, _("Operators need a second factor. Set one up, then come back."))
    return redirect("mfa_index")


def usd_column(nanos: int, decimals: int = 6) -> str:
    """Amount of a column that is called (USD), with the decimal sign of the reader's language."""
    return number_format(format_usd(nanos, decimals=decimals), decimal_pos=decimals)


class OperatorsSite(UnfoldAdminSite):  # type: ignore[misc] # unfold has no types
    """Admin site without a login of its own: operators use the common sign-in, second factor included."""

    @override
    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Leave the theme to the context of every page: the library's is its own."""
        context: dict[str, Any] = super().each_context(request)
        del context["theme"]
        return context

    @override
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.user.is_authenticated:
            if self.has_permission(request):
                return redirect("admin:index")
            raise PermissionDenied
        return redirect_to_login(request.GET.get("next") or "/ops/")

    @override
    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Ask an operator for a second factor first, where the settings demand one."""
        inner = super().admin_view(view, cacheable)

        @wraps(inner)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            is_asked = settings.OPERATORS_NEED_SECOND_FACTOR and self.has_permission(request)
            if is_asked and not is_mfa_enabled(request.user):
                return to_second_factor(request)
            return inner(request, *args, **kwargs)

        return guarded

    @override
    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return redirect("account_logout")


site = OperatorsSite(name="admin")


class CappedPaginator(Paginator):  # type: ignore[type-arg] # of anything
    """Paginator that counts at most MAX_ROWS rows: counting a whole log takes minutes."""

    MAX_ROWS = 5_000

    @cached_property
    @override
    def count(self) -> int:
        rows = self.object_list
        return len(rows.order_by().values_list("pk")[: self.MAX_ROWS]) if isinstance(rows, QuerySet) else len(rows)


class StaffAdmin(ModelAdmin):  # type: ignore[misc] # unfold has no types
    """Base of operator pages: a list and a form."""

    list_per_page = 50
    show_full_result_count = False
    paginator = CappedPaginator
    list_filter_submit = True
    warn_unsaved_form = True
    actions: Any = ()


class ReadOnlyAdmin(StaffAdmin):
    """Base of operator pages that cannot be edited."""

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @override
    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @override
    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
