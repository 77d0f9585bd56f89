"""Facts that LiteLLM's responses tell of itself: whether it takes a key, and which release it is. Pure."""

import httpx

# Without a database it cannot look a key up, and says that instead of 401.
_NO_DATABASE = ("no_db_connection", "no connected db", "database not connected")


def refuses_key(response: httpx.Response) -> bool:
    """Return whether a response refuses the key that asked."""
    if response.status_code in (401, 403):
        return True
    return response.status_code in (400, 500) and any(said in response.text[:2000].lower() for said in _NO_DATABASE)


def version_in(response: httpx.Response) -> str:
    """Return the release that a response names; empty if it does not."""
    if version := response.headers.get("x-litellm-version"):
        return str(version)
    try:
        found = response.json()
    except ValueError:
        return ""
    return str(found.get("litellm_version") or "") if isinstance(found, dict) else ""
