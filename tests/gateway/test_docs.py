"""Completeness of the documentation for callers."""

import re
from typing import Any

import pytest
from drf_spectacular.drainage import reset_generator_stats
from drf_spectacular.generators import SchemaGenerator

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


def test_the_schema_is_made_without_a_doubt(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings go to stderr: a field whose type was guessed, two enumerations of one name."""
    reset_generator_stats()
    described()
    assert not re.search(r"Warning|Error", capsys.readouterr().err)
