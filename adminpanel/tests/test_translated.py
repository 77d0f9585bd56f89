"""Words of the operators' tables: everything that they show of models has a Turkish text."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.contrib.admin.utils import label_for_field
from django.test import RequestFactory
from django.utils import translation

from accounts.models import User
from codexflow.lib.admin import site

# Alike in both languages.
ALIKE = {"API", "ID", "Webhook", "id", "English", "Türkçe", "Plan", "model", "plan"}


def words_of(table: ModelAdmin[Any], request: Any) -> Iterator[tuple[str, str]]:
    """Place and words of each text, in the active language."""
    meta = table.model._meta
    yield "verbose_name", str(meta.verbose_name)
    yield "verbose_name_plural", str(meta.verbose_name_plural)
    for name in table.get_list_display(request):
        yield f"column {name}", str(label_for_field(name, table.model, table))
    for given in table.get_list_filter(request):
        found: Any = given
        name, kind = found if isinstance(given, tuple) else (found, found)
        is_own = isinstance(kind, type) and issubclass(kind, SimpleListFilter)
        yield f"filter {name}", str(kind.title if is_own else field_of(table, name).verbose_name)
    for name, action in table.get_actions(request).items():
        yield f"action {name}", str(action[2]) if action else ""
    own = table.form.base_fields
    for title, options in table.get_fieldsets(request) or ():
        yield "fieldset", str(title or "")
        yield "fieldset", str(options.get("description", ""))
        for row in options["fields"]:
            for name in [row] if isinstance(row, str) else row:
                if name in own:
                    yield f"field {name}", str(own[name].label or name)
                elif hasattr(table, name) or hasattr(table.model, name):
                    yield f"field {name}", str(label_for_field(name, table.model, table))
    for field in table.model._meta.get_fields():
        yield f"help {field.name}", str(getattr(field, "help_text", ""))
        for _value, label in getattr(field, "choices", None) or ():
            yield f"choice of {field.name}", str(label)
    for name, each in own.items():
        yield f"help {name}", str(each.help_text)


def field_of(table: ModelAdmin[Any], path: str) -> Any:
    model = table.model
    *parents, last = path.split("__")
    for name in parents:
        model = model._meta.get_field(name).related_model
    return model._meta.get_field(last)


@pytest.mark.django_db
def test_what_the_tables_show_has_a_turkish_text(rf: RequestFactory) -> None:
    admin.autodiscover()
    request = rf.get("/")
    request.user = User.objects.create_superuser("root@example.org")
    same = []
    for model, table in site._registry.items():
        texts = {}
        for language in ("en", "tr"):
            with translation.override(language):
                texts[language] = list(words_of(table, request))
        same += [
            f"{model._meta.label}: {where}: {text}"
            for (where, text), (_where, other) in zip(texts["en"], texts["tr"], strict=True)
            if text and text == other and text not in ALIKE
        ]
    assert not same, "\n".join(same)
