"""Every action that the code writes into the audit log has a label, and an area to filter by."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from accounts import audit
from accounts.audited_admin import AuditedAdmin
from codexflow import urls
from codexflow.env import REPOSITORY
from codexflow.lib.admin import site

APPS = ("accounts", "adminpanel", "billing", "codexflow", "keys", "logs", "routing")
# Builds action names from models: see by_operators.
OPERATORS = REPOSITORY / "accounts" / "audited_admin.py"

# Importing the routes registers the operator pages.
assert urls.urlpatterns


def sources() -> Iterator[Path]:
    for app in APPS:
        for path in (REPOSITORY / app).rglob("*.py"):
            if not {"tests", "migrations"} & set(path.relative_to(REPOSITORY).parts) and path != OPERATORS:
                yield path


def recorded_in(tree: ast.AST) -> Iterator[str]:
    """Actions of `audit.record(…)`; where a function passes its own argument on, those of its callers."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        for call in _calls(function, "record"):
            yield from _actions(call.args[0], function, tree)


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == name:
                yield node


def _actions(action: ast.expr, function: ast.FunctionDef, tree: ast.AST) -> Iterator[str]:
    if isinstance(action, ast.Constant):
        yield str(action.value)
    elif isinstance(action, ast.IfExp):
        yield from _actions(action.body, function, tree)
        yield from _actions(action.orelse, function, tree)
    else:
        parameters = [each.arg for each in function.args.args]
        name = ast.unparse(action)
        assert name in parameters, f"{function.name}: say the action {name} literally, or pass it as an argument"
        for call in _calls(tree, function.name):
            yield from _actions(call.args[parameters.index(name)], function, tree)


RECORDED = sorted({action for path in sources() for action in recorded_in(ast.parse(path.read_text()))})


def test_actions_are_found_in_the_code() -> None:
    passed_on = {"member.left", "member.removed", "export.requested"}
    assert {"key.issued", "invitation.created", "account.exported", *passed_on} <= set(RECORDED)


@pytest.mark.parametrize("action", RECORDED)
def test_a_recorded_action_has_a_label_and_an_area(action: str) -> None:
    assert action in audit.labels(), f"{action}: no label in audit_actions of an app"
    area = action.partition(".")[0]
    assert area in audit.areas(), f"{action}: no area {area} in audit_areas of an app"


def by_operators() -> Iterator[str]:
    """Actions that operators' forms record in an organization's audit log."""
    for model, admin in site._registry.items():
        form = type(admin)
        if isinstance(admin, AuditedAdmin) and form.organization_of is not AuditedAdmin.organization_of:
            yield f"{model._meta.model_name}.changed"
            if form.has_add_permission is AuditedAdmin.has_add_permission:
                yield f"{model._meta.model_name}.created"


@pytest.mark.parametrize("action", list(by_operators()))
def test_operator_actions_on_an_organization_have_a_label(action: str) -> None:
    assert action in audit.labels(), f"{action}: no label in audit_actions of an app"


def test_every_labelled_action_is_recorded_somewhere() -> None:
    assert not set(audit.labels()) - {*RECORDED, *by_operators()}
