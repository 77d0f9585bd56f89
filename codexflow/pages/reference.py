"""API reference, generated from the OpenAPI schema of the management API."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator

from codexflow import __version__
from codexflow.lib.addresses import api_url
from codexflow.lib.openapi import ERROR_RESPONSE
from codexflow.pages.docs import sections
from codexflow.settings import ENV

METHODS = ("get", "post", "put", "patch", "delete")
# Not for customers.
EXCLUDED_PATHS = (
    "/api/v1/schema",
    "/api/v1/reconciliation",
    "/api/v1/margin",
    *(f"/api/v1/operator/{name}" for name in ("grants", "adjustments", "payments", "refunds")),
)


@dataclass(frozen=True, slots=True)
class Field:
    """Parameter, or field of a body. `depth` is its nesting level; `words` is its description."""

    name: str
    kind: str
    is_required: bool
    words: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """Method of a path. `words` is its description."""

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
    """List all operations by resource."""
    base = api_url(ENV).removesuffix("/v1")
    facts = {"sections": sections(request.path), "groups": groups(), "base": base}
    facts |= {"source": reverse("docs-reference-source"), "version": __version__}
    return render(request, "pages/docs/reference.html", facts)


@cache
def groups() -> list[tuple[str, list[Operation]]]:
    """Operations by the first segment of their path. Cached: the schema is constant within a process."""
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    found: dict[str, list[Operation]] = {}
    for path, methods in schema["paths"].items():
        if path in EXCLUDED_PATHS:
            continue
        for method in METHODS:
            if method in methods:
                found.setdefault(path.split("/")[3], []).append(_operation(path, method, methods[method], schema))
    return list(found.items())


def _operation(path: str, method: str, described: dict[str, Any], schema: dict[str, Any]) -> Operation:
    return Operation(
        anchor=described["operationId"].replace("_", "-"),
        method=method.upper(),
        path=path,
        words=described.get("description", ""),
        parameters=[
            Field(each["name"], _kind(each["schema"], schema), each.get("required", False), each.get("description", ""))
            for each in described.get("parameters", [])
        ],
        body=_fields_of(_content(described.get("requestBody", {})), schema),
        responses=[
            (status, response.get("description", ""), _fields_of(_content(response), schema) if status < "400" else [])
            for status, response in described["responses"].items()
            if status != ERROR_RESPONSE  # of any operation; docs/errors.md has them
        ],
    )


def _content(described: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = described.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _fields_of(shape: dict[str, Any], schema: dict[str, Any], depth: int = 0) -> list[Field]:
    """Fields of an object, each followed by its own fields if it is an object or a list of objects."""
    shape = _resolved(shape, schema)
    if shape.get("type") == "array":
        return _fields_of(shape["items"], schema, depth)
    required = shape.get("required", [])
    found = []
    for name, part in shape.get("properties", {}).items():
        described = _resolved(part, schema)
        words = part.get("description") or ("" if "enum" in described else described.get("description", ""))
        found.append(Field(name, _kind(part, schema), name in required, words, depth))
        if depth < 3:
            found += _fields_of(part, schema, depth + 1)
    return found


def _resolved(shape: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Resolve `$ref`, and reduce allOf and oneOf to their first part."""
    if "$ref" in shape:
        target: dict[str, Any] = schema["components"]["schemas"][shape["$ref"].rpartition("/")[2]]
        return _resolved(target, schema)
    if "allOf" in shape:
        return _resolved(shape["allOf"][0], schema) | {key: value for key, value in shape.items() if key != "allOf"}
    if "oneOf" in shape:
        return _resolved(shape["oneOf"][0], schema)
    return shape


def _kind(shape: dict[str, Any], schema: dict[str, Any]) -> str:
    """Type of a field: `string`, `array of object`, `csv | jsonl`, …"""
    described = _resolved(shape, schema)
    if "enum" in described:
        return " | ".join(str(value) for value in described["enum"] if value not in ("", None))
    if described.get("type") == "array":
        return f"array of {_kind(described['items'], schema)}"
    kind = str(described.get("format") or described.get("type") or "any")
    return f"{kind} | null" if described.get("nullable") or shape.get("nullable") else kind
