"""Form-encoded parameters with brackets, as Stripe's SDKs send them. Pure."""

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

from codexflow.dev.stripe.errors import ApiError


def parse(text: str) -> dict[str, Any]:
    """Parse `a[b][0][c]=d` into dicts and lists. All values stay texts."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        *steps, last = name.replace("]", "").split("[")
        place = found
        for step in steps:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise ApiError(f"Invalid parameter: {name}", param=name)
        place[last] = value
    return {name: _listed(value) for name, value in found.items()}


def _listed(value: Any) -> Any:
    """Turn dicts whose keys are positions into lists."""
    if not isinstance(value, dict):
        return value
    children = {name: _listed(child) for name, child in value.items()}
    if children and all(name.isdecimal() for name in children):
        return [children[name] for name in sorted(children, key=int)]
    return [children[""]] if set(children) == {""} else children


def allow(given: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuse parameters that the endpoint does not know, as Stripe does."""
    for name in given:
        if name not in names and name != "expand":
            raise ApiError(f"Received unknown parameter: {name}", code="parameter_unknown", param=name)


def require(given: Mapping[str, Any], name: str) -> Any:
    """Return a parameter. Raises ApiError when it is missing."""
    if not given.get(name):
        raise ApiError(f"Missing required param: {name}.", code="parameter_missing", param=name)
    return given[name]


def whole(given: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Return an integer parameter. Raises ApiError for anything else."""
    if name not in given and default is not None:
        return default
    text = str(require(given, name))
    if not text.lstrip("-").isdecimal():
        raise ApiError(f"Invalid integer: {text}", code="parameter_invalid_integer", param=name)
    return int(text)
