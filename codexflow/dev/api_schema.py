"""`make api-schema`: write docs/api-schema.txt, the management API's schema as one sorted line a fact.

Its difference between two commits is what has changed for programs that use the API. A test compares it with the code.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import django
from drf_spectacular.generators import SchemaGenerator

from codexflow.env import REPOSITORY

FILE = REPOSITORY / "docs" / "api-schema.txt"
Schema = Mapping[str, Any]


def lines_of(schema: Schema) -> list[str]:
    """Each parameter, request, response and field of an OpenAPI schema as a line, sorted. Pure."""
    lines = {line for path, methods in schema["paths"].items() for line in _operations(path, methods)}
    for name, part in schema.get("components", {}).get("schemas", {}).items():
        lines |= set(_fields(name, part))
    return sorted(lines)


def _operations(path: str, methods: Schema) -> Iterator[str]:
    for method, operation in methods.items():
        call = f"{method.upper()} {path}"
        yield call
        for each in operation.get("parameters", []):
            need = " required" if each.get("required") else ""
            yield f"{call} {each['in']} {each['name']}: {_type(each['schema'])}{need}"
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{call} takes {media}: {_type(content.get('schema', {}))}"
        for status, response in operation["responses"].items():
            kinds = [f"{media}: {_type(each.get('schema', {}))}" for media, each in response.get("content", {}).items()]
            yield " ".join([call, status, *kinds])


def _fields(name: str, part: Schema) -> Iterator[str]:
    required = set(part.get("required", []))
    if "properties" not in part:
        yield f"{name}: {_type(part)}"
    for field, each in part.get("properties", {}).items():
        yield f"{name}.{field}: {_type(each)}{' required' if field in required else ''}"


def _type(part: Schema) -> str:
    if "$ref" in part:
        return str(part["$ref"]).rpartition("/")[2]
    for word in ("allOf", "oneOf", "anyOf"):
        if word in part:
            return " | ".join(_type(each) for each in part[word])
    if "enum" in part:
        return " | ".join(map(repr, part["enum"]))
    if part.get("type") == "array":
        return f"[{_type(part.get('items', {}))}]"
    named = part.get("type", "any")
    kind = " | ".join(named) if isinstance(named, list) else str(named)
    return f"{kind}({part['format']})" if "format" in part else kind


def text() -> str:
    """Content of the file for the code as it is. Django is set up."""
    schema: Schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return "\n".join(lines_of(schema)) + "\n"


def main() -> None:
    """Needs DJANGO_SETTINGS_MODULE."""
    django.setup()
    lines = text()
    FILE.write_text(lines)
    sys.stdout.write(f"{FILE.name}: {lines.count(chr(10))} lines\n")


if __name__ == "__main__":
    main()
