"""Public URLs of this installation, and normalized client addresses."""

from functools import lru_cache
from ipaddress import ip_address

from codexflow.env import Env

WILDCARD_HOSTS = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def site_url(env: Env) -> str:
    """Base URL of the site: SITE_URL, or the address that a browser on this machine can use."""
    if env.site_url:
        return env.site_url
    host = "127.0.0.1" if env.host in WILDCARD_HOSTS else env.host
    return f"http://[{host}]:{env.port}" if ":" in host else f"http://{host}:{env.port}"


def api_url(env: Env) -> str:
    """Base URL for SDKs; ends in /v1."""
    base = env.public_api_url or site_url(env)
    return base if base.endswith("/v1") else f"{base}/v1"


@lru_cache(maxsize=4096)  # called once per gateway call
def plain_address(text: str) -> str | None:
    """Return a client's IP address in the form PostgreSQL accepts; None if the text is not one.

    Proxies forward whatever address a client claims.
    """
    try:
        return str(ip_address(text.partition("%")[0]))  # without the zone of a link-local one
    except ValueError:
        return None
