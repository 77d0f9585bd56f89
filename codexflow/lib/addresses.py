"""Where this installation is found from outside."""

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
