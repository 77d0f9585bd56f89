"""OpenAPI security scheme of authentication by API key, for drf-spectacular."""

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from typing_extensions import override


class KeyAuthenticationScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call] # registers itself
    target_class = "keys.authentication.KeyAuthentication"
    name = "ApiKey"

    @override
    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "cfx_…"}


class OperatorScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call] # registers the subclass
    """Documents the bearer of the operators' API."""

    target_class = "keys.operators.OperatorAuthentication"
    name = "operatorKey"

    @override
    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
