"""Completeness of the documentation for callers."""

import re
from typing import Any

import pytest
from drf_spectacular.drainage import reset_generator_stats
from drf_spectacular.generators import SchemaGenerator

from codexflow.dev import api_schema
from codexflow.env import REPOSITORY
from routing.gateway import MODEL_ROUTE, ROUTES
from routing.surfaces.table import SURFACES
from tests.support.lists import assert_same


def test_every_route_is_documented_and_nothing_else_is() -> None:
    text = (REPOSITORY / "docs" / "surfaces.md").read_text()
    documented = set(re.findall(r"`(GET|POST) (/v1/[^`]*)`", text))
    served = {(method, path) for path, methods in ROUTES.items() for method in methods if path.startswith("/v1/")}
    assert_same(documented, served | {(method, "/v1/models/{id}") for method in MODEL_ROUTE}, "docs/surfaces.md")
    for surface in SURFACES:
        assert f"| `POST {surface.path}` | `{surface.name}` |" in text


def described() -> dict[str, Any]:
    generator: Any = SchemaGenerator
    schema: dict[str, Any] = generator(api_version="1").get_schema(request=None, public=True)
    return schema


def test_every_endpoint_of_the_management_api_is_documented_and_nothing_else_is() -> None:
    text = (REPOSITORY / "docs" / "api.md").read_text()
    documented = set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/api/v1/[^`]*)`", text))
    paths = described()["paths"]
    served = {
        (method.upper(), path) for path, methods in paths.items() for method in methods if path != "/api/v1/schema"
    }
    assert_same(documented - {("GET", "/api/v1/schema")}, served, "docs/api.md")
    assert "/ws/o/{slug}/logs/" in text


def test_the_recorded_schema_is_that_of_the_code() -> None:
    recorded, found = set(api_schema.FILE.read_text().splitlines()), set(api_schema.text().splitlines())
    changes = [f"- {line}" for line in sorted(recorded - found)] + [f"+ {line}" for line in sorted(found - recorded)]
    assert not changes, "say it in CHANGELOG.md, then `make api-schema`"


def test_a_change_of_the_schema_is_a_line() -> None:
    schema: dict[str, Any] = {
        "paths": {
            "/a": {
                "get": {
                    "parameters": [{"in": "query", "name": "q", "schema": {"type": "string"}}],
                    "responses": {
                        "200": {
                            "content": {"application/json": {"schema": {"type": "array", "items": {"$ref": "#/c/A"}}}}
                        },
                        "404": {},
                    },
                }
            }
        },
        "components": {"schemas": {"A": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}}},
    }
    assert api_schema.lines_of(schema) == [
        "A.n: integer required",
        "GET /a",
        "GET /a 200 application/json: [A]",
        "GET /a 404",
        "GET /a query q: string",
    ]
    schema["components"]["schemas"]["A"]["required"] = []
    assert "A.n: integer" in api_schema.lines_of(schema)


def test_the_schema_is_made_without_a_doubt(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings go to stderr: a field whose type was guessed, two enumerations of one name."""
    reset_generator_stats()
    described()
    assert not re.search(r"Warning|Error", capsys.readouterr().err)
