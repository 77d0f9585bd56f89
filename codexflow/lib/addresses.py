"""Where this installation is found from outside."""

from functools import lru_cache
from ipaddress import ip_address

from codexflow.env import Env

EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def site_url(env: Env) -> str:
    """Where a browser on this machine finds the site."""
    if env.site_url:
        return env.site_url
    host = "127.0.0.1" if env.host in EVERYWHERE else env.host
    return f"http://[{host}]:{env.port}" if ":" in host else f"http://{host}:{env.port}"


def api_url(env: Env) -> str:
    """The base URL that SDKs are given."""
    base = env.public_api_url or site_url(env)
    return base if base.endswith("/v1") else f"{base}/v1"


@lru_cache(maxsize=4096)  # asked for every call
def plain_address(text: str) -> str | None:
    """A client's address as PostgreSQL takes it; None for what is none. Proxies pass on whatever they were told."""
    try:
        return str(ip_address(text.partition("%")[0]))  # without the zone of a link-local one
    except ValueError:
        return None
