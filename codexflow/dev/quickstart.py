"""Quickstart of a development installation: addresses, login, demo key. Stored in CFX_HOME, printed by `up`."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Self

from codexflow.dev.home import Home
from codexflow.env import Env
from codexflow.lib.addresses import api_url, site_url

DEMO_MODEL = "gpt-6-luna"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quickstart:
    """The content of quickstart.json."""

    base_url: str  # ends in /v1, as SDKs want it
    dashboard_url: str
    organization: str  # its slug
    admin_email: str
    admin_password: str = field(repr=False)
    api_key: str = field(repr=False)

    @classmethod
    def read(cls, home: Home) -> Self | None:
        """Read the stored quickstart; None when it is missing or incomplete."""
        content = home.read(home.quickstart_file)
        if not all(isinstance(content.get(name), str) and content[name] for name in cls.__dataclass_fields__):
            return None
        return cls(**{name: content[name] for name in cls.__dataclass_fields__})

    def write(self, home: Home) -> None:
        """Store it, readable by the owner only."""
        home.write(home.quickstart_file, asdict(self))

    def curl(self) -> str:
        """Build a curl command line that works when pasted."""
        body = json.dumps({"model": DEMO_MODEL, "messages": [{"role": "user", "content": "Hello"}]})
        return (
            f"curl -sS {self.base_url}/chat/completions -H 'Authorization: Bearer {self.api_key}' "
            f"-H 'Content-Type: application/json' -d '{body}'"
        )

    def text(self) -> str:
        """Render the lines that `up` prints."""
        rows = [
            ("dashboard", self.dashboard_url),
            ("login", f"{self.admin_email}  {self.admin_password}"),
            ("organization", self.organization),
            ("API", self.base_url),
            ("demo key", self.api_key),
        ]
        return "\n".join([*(f"  {name:<13}{value}" for name, value in rows), "", f"  {self.curl()}"])


def ensure(env: Env, *, issue: Callable[[Env], Quickstart]) -> Quickstart:
    """Return the stored quickstart with the current addresses, or issue a new one when the file is missing."""
    home = Home(env.home)
    kept = Quickstart.read(home)
    current = replace(kept or issue(env), base_url=api_url(env), dashboard_url=site_url(env))
    if current != kept:
        current.write(home)
    return current
