"""Operator edits: each writes an audit entry and sends `access_changed`."""

from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import Model
from django.http import HttpRequest
from typing_extensions import override

from accounts import audit
from accounts.audit import acting
from accounts.models import Organization, User
from accounts.signals import access_changed
from codexflow.lib.admin import StaffAdmin


class AuditedAdmin(StaffAdmin):
    """Admin form whose changes are written to the audit log: fields, actor and address."""

    # Names and addresses: the audit log records that they changed, never the value, because deleting a user must erase
    # it and entries cannot be changed.
    personal_fields: tuple[str, ...] = ()

    # Columns that are set beside those of the form when it is saved.
    derived_fields: tuple[str, ...] = ()

    def organization_of(self, obj: Any) -> Organization | None:
        """Organization in whose audit log the entry appears; None: in no organization's."""
        return None

    @override
    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        """Write what was changed, and no other column: a sum or a counter may have moved since the row was read."""
        if change:
            columns = {each.name for each in obj._meta.concrete_fields}
            obj.save(update_fields=(columns & set(form.changed_data)) | set(self.derived_fields))
        else:
            super().save_model(request, obj, form, change)
        changed = {name: self._audit_value(name, form.cleaned_data.get(name)) for name in form.changed_data}
        self._record(request, obj, "changed" if change else "created", fields=changed)

    @override
    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        self._record(request, obj, "deleted")
        super().delete_model(request, obj)

    @override
    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def _audit_value(self, name: str, value: Any) -> str | None:
        if name in self.personal_fields:
            return None
        return str(value.pk) if isinstance(value, (User, Organization)) else str(value)

    def _record(self, request: HttpRequest, obj: Model, verb: str, **facts: Any) -> None:
        action = f"{obj._meta.model_name}.{verb}"
        organization = self.organization_of(obj)
        audit.record(action, obj, organization=organization, **acting(request), **facts)
        concerned = organization.pk if organization is not None else None
        transaction.on_commit(partial(access_changed.send, type(obj), organization_id=concerned))
