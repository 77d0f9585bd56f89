"""manage.py create_litellm_key against a stand-in."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.support.loopback import LoopbackServer, QuietHandler

ADMIN_KEY = "sk-admin-key-for-tests"


class Handler(QuietHandler):
    """Answers as LiteLLM does to its administrator; an alias that is taken is a 400."""

    def do_POST(self) -> None:  # noqa: N802 - http.server asks for this name
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        is_admin = self.headers["authorization"] == f"Bearer {ADMIN_KEY}"
        status = 401 if not is_admin else 400 if body["key_alias"] == "taken" else 200
        content = json.dumps({"key": "sk-made", "key_alias": body["key_alias"]}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def litellm(settings: Any) -> Iterator[str]:
    server = LoopbackServer(Handler)
    settings.ENV = replace(settings.ENV, litellm_url=server.url, litellm_admin_key=ADMIN_KEY)
    yield server.url
    server.close()


def test_the_key_alone_is_printed(litellm: str, capsys: Any) -> None:
    call_command("create_litellm_key")
    assert capsys.readouterr().out == "sk-made\n"


def test_why_there_is_no_key_is_said(litellm: str, settings: Any) -> None:
    with pytest.raises(CommandError, match="status 400"):
        call_command("create_litellm_key", "--alias", "taken")
    settings.ENV = replace(settings.ENV, litellm_admin_key="sk-wrong")
    with pytest.raises(CommandError, match="LiteLLM refuses LITELLM_ADMIN_KEY"):
        call_command("create_litellm_key")
    settings.ENV = replace(settings.ENV, litellm_admin_key="")
    with pytest.raises(CommandError, match="LITELLM_ADMIN_KEY first"):
        call_command("create_litellm_key")
