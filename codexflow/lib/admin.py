"""The operators' site under /ops/ and the sorts of pages it is made of.

Who may do what is `User.has_perm`: a super administrator may edit, an administrator may look.
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
    """Signing in happens where everybody signs in, with everything that asks there."""

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


class FirstPages(Paginator):  # type: ignore[type-arg] # of anything
    """Counts no further than a few thousand rows: nobody turns more pages, and counting all of a log takes minutes."""

    MOST = 5_000

    @cached_property
    @override
    def count(self) -> int:
        rows = self.object_list
        return len(rows.order_by().values_list("pk")[: self.MOST]) if isinstance(rows, QuerySet) else len(rows)


class StaffAdmin(ModelAdmin):  # type: ignore[misc] # unfold has no types
    """A list and a form."""

    list_per_page = 50
    show_full_result_count = False
    paginator = FirstPages
    list_filter_submit = True
    warn_unsaved_form = True
    actions: Any = ()


class ReadOnlyAdmin(StaffAdmin):
    """What nobody edits here, or anywhere."""

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @override
    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @override
    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
