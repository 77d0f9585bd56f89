"""The API reference, drawn from the schema that the management API gives of itself."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator

from codexflow.lib.addresses import api_url
from codexflow.lib.openapi import FAILURE
from codexflow.pages.docs import sections
from codexflow.settings import ENV

METHODS = ("get", "post", "put", "patch", "delete")
# Not for customers.
LEFT_OUT = ("/api/v1/schema", "/api/v1/reconciliation")


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, or a field of a body. `depth` is how far inside another it stands."""

    name: str
    kind: str
    is_required: bool
    words: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path."""

    anchor: str
    method: str
    path: str
    words: str
    parameters: list[Field]
    body: list[Field]
    responses: list[tuple[str, str, list[Field]]]

    @property
    def first_line(self) -> str:
        return self.words.partition("\n")[0]


@require_safe
def reference(request: HttpRequest) -> HttpResponse:
    """All operations, by what they are about."""
    base = api_url(ENV).removesuffix("/v1")
    return render(
        request, "pages/docs/reference.html", {"sections": sections(request.path), "groups": groups(), "base": base}
    )


@cache
def groups() -> list[tuple[str, list[Operation]]]:
    """Operations by the first word of their path. The schema does not change while the process lives."""
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    found: dict[str, list[Operation]] = {}
    for path, methods in schema["paths"].items():
        if path in LEFT_OUT:
            continue
        for method in METHODS:
            if method in methods:
                found.setdefault(path.split("/")[3], []).append(_operation(path, method, methods[method], schema))
    return list(found.items())


def _operation(path: str, method: str, told: dict[str, Any], schema: dict[str, Any]) -> Operation:
    return Operation(
        anchor=told["operationId"].replace("_", "-"),
        method=method.upper(),
        path=path,
        words=told.get("description", ""),
        parameters=[
            Field(each["name"], _kind(each["schema"], schema), each.get("required", False), each.get("description", ""))
            for each in told.get("parameters", [])
        ],
        body=_fields_of(_content(told.get("requestBody", {})), schema),
        responses=[
            (status, answer.get("description", ""), _fields_of(_content(answer), schema) if status < "400" else [])
            for status, answer in told["responses"].items()
            if status != FAILURE  # of any operation; docs/errors.md has them
        ],
    )


def _content(told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = told.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _fields_of(shape: dict[str, Any], schema: dict[str, Any], depth: int = 0) -> list[Field]:
    """The fields of an object, and below each that is an object or a list of them, its own."""
    shape = _resolved(shape, schema)
    if shape.get("type") == "array":
        return _fields_of(shape["items"], schema, depth)
    required = shape.get("required", [])
    found = []
    for name, part in shape.get("properties", {}).items():
        told = _resolved(part, schema)
        words = part.get("description") or ("" if "enum" in told else told.get("description", ""))
        found.append(Field(name, _kind(part, schema), name in required, words, depth))
        if depth < 3:
            found += _fields_of(part, schema, depth + 1)
    return found


def _resolved(shape: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a reference stands for; several parts in one."""
    if "$ref" in shape:
        target: dict[str, Any] = schema["components"]["schemas"][shape["$ref"].rpartition("/")[2]]
        return _resolved(target, schema)
    if "allOf" in shape:
        return _resolved(shape["allOf"][0], schema) | {key: value for key, value in shape.items() if key != "allOf"}
    if "oneOf" in shape:
        return _resolved(shape["oneOf"][0], schema)
    return shape


def _kind(shape: dict[str, Any], schema: dict[str, Any]) -> str:
    """`string`, `array of object`, `csv | jsonl`, …"""
    told = _resolved(shape, schema)
    if "enum" in told:
        return " | ".join(str(value) for value in told["enum"] if value not in ("", None))
    if told.get("type") == "array":
        return f"array of {_kind(told['items'], schema)}"
    kind = str(told.get("format") or told.get("type") or "any")
    return f"{kind} | null" if told.get("nullable") or shape.get("nullable") else kind
