"""A call in flight: one writer per field, and one signal for shutdown."""

import ast
from pathlib import Path

import pytest

import routing
from routing.call import Call, ShutdownSignal

# Fields that another module than call.py changes, which only initializes them.
WRITERS = {"attempts": "upstream/open.py"}
_CHANGING_METHODS = {"append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"}
_SOURCE = Path(routing.__file__).parent
_MODULES = {str(path.relative_to(_SOURCE)): path for path in _SOURCE.rglob("*.py") if "tests" not in path.parts}


def _is_call(node: ast.expr) -> bool:
    """Return whether an expression is a call in flight by this app's naming: `call` and `self._call`."""
    return (isinstance(node, ast.Name) and node.id == "call") or (
        isinstance(node, ast.Attribute) and node.attr == "_call"
    )


def _written_fields(module: str) -> set[str]:
    """Return the fields of calls in flight that a module writes. In call.py `self` of Call counts."""
    tree: ast.AST = ast.parse(_MODULES[module].read_text())
    if module == "call.py":
        tree = next(each for each in ast.walk(tree) if isinstance(each, ast.ClassDef) and each.name == "Call")
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING_METHODS:
            target = node.func.value
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            target = node
        else:
            continue
        if isinstance(target, ast.Attribute):
            owner = target.value
            is_self = module == "call.py" and isinstance(owner, ast.Name) and owner.id == "self"
            if is_self or _is_call(owner):
                found.add(target.attr)
    return found


def test_a_call_initializes_all_its_fields_itself() -> None:
    assert _written_fields("call.py") == set(Call.__slots__)


@pytest.mark.parametrize("module", sorted(_MODULES.keys() - {"call.py"}))
def test_each_field_of_a_call_is_written_only_by_its_own_module(module: str) -> None:
    assert _written_fields(module) == {field for field, writer in WRITERS.items() if writer == module}


@pytest.mark.parametrize("module", sorted(_MODULES))
def test_nothing_reaches_through_a_call_to_write_on_its_parts(module: str) -> None:
    """Meter and shutdown signal change by their own methods, and only the shutdown manager sends the signal."""
    tree = ast.parse(_MODULES[module].read_text())
    attributes = [each for each in ast.walk(tree) if isinstance(each, ast.Attribute)]
    parts = [each for each in attributes if isinstance(each.value, ast.Attribute) and each.value.attr in Call.__slots__]
    assert not [each.attr for each in parts if isinstance(each.ctx, ast.Store | ast.Del)]
    is_sender = any(each.attr == "set" and ast.unparse(each.value).endswith(".shutdown") for each in parts)
    assert is_sender == (module == "shutdown.py")


def test_shutdown_calls_back_and_stays_set() -> None:
    signal, called = ShutdownSignal(), list[str]()
    signal.on_set(lambda: called.append("aborted"))
    assert not signal.is_set
    signal.set()
    assert (signal.is_set, called) == (True, ["aborted"])


def test_a_finished_call_is_not_interrupted() -> None:
    signal, called = ShutdownSignal(), list[str]()
    signal.on_set(lambda: called.append("aborted"))
    signal.detach()
    signal.set()
    assert called == []
