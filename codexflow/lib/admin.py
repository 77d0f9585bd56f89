"""Admin site of operators under /ops/ and base classes of its pages.

Permissions come from `User.has_perm`: a super administrator may edit, an administrator may view.
"""

from typing import Any, TypeVar

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.functional import cached_property
from typing_extensions import override
from unfold.admin import ModelAdmin
from unfold.sites import UnfoldAdminSite

M = TypeVar("M", bound=Model)


class OperatorsSite(UnfoldAdminSite):  # type: ignore[misc] # unfold has no types
    """Admin site without a login of its own: operators use the common sign-in, second factor included."""

    @override
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.user.is_authenticated:
            if self.has_permission(request):
                return redirect("admin:index")
            raise PermissionDenied
        return redirect_to_login(request.GET.get("next") or "/ops/")

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
