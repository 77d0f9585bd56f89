"""Logs without secrets: whatever is logged, by whichever logger."""

import io
import json
import logging
import logging.config
from typing import Any

import pytest
from django.test import RequestFactory
from django.urls import resolve
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from codexflow.lib.log import REDACTED, Handler, logging_config, redact_log

KEY = "cfx_Ab3dEf7h_0123456789abcdefABCDEF0123456789xyzXYZ"
CANARIES = (KEY, "sk-proj-canary0123456789", "whsec_canary0123456789", "hunter2-canary")


class Said:
    """An object whose repr holds a secret."""

    def __init__(self, text: str) -> None:
        self.text = text

    @override
    def __repr__(self) -> str:
        return f"<Said {self.text}>"


class Mute:
    @override
    def __repr__(self) -> str:
        raise RuntimeError(KEY)


def logger_of(name: str) -> tuple[logging.Logger, io.StringIO]:
    """A logger that writes as every process is configured to, and what it writes."""
    written = io.StringIO()
    config = logging_config("DEBUG")
    handler = Handler(written)
    handler.setFormatter(logging.config.DictConfigurator(config).configure_formatter(config["formatters"]["json"]))
    logger = logging.Logger(name, logging.DEBUG)  # noqa: LOG001 - without the handlers that pytest adds
    logger.addHandler(handler)
    return logger, written


def planted(secret: str) -> list[dict[str, Any]]:
    """Ways for a secret to get into a record, as arguments of `Logger.warning`."""
    request = RequestFactory().get("/api/v1/usage", {"api_key": secret}, headers={"authorization": f"Bearer {secret}"})
    encoded = "".join(f"%{byte:02x}" for byte in secret.encode())
    escaped = "".join(f"\\u{ord(char):04x}" for char in secret)
    extras: list[Any] = [
        f"password={secret}",
        request,
        request.META,
        {"headers": [(b"x-api-key", secret.encode()), (b"authorization", f"Bearer {secret}".encode())]},
        {"a": [{"b": ({"password": secret},)}]},
        {f"token={secret}": 1, KEY: 2, "token": [secret]},
        repr({"Authorization": f"Token {secret}", "x-api-key": secret}),
        repr([(b"x-api-key", secret.encode())]),
        json.dumps({"deep": json.dumps({"client_secret": secret})}),
        f"https://user:{secret}@example.org/?key={secret}&x=1",
        f"GET /nope?token={encoded} HTTP/1.1",
        f'"api_key": "{escaped}"',
        f"Cookie: sessionid={secret}; csrftoken={secret}",
        Said(f"secret={secret!r}"),
        ValueError(f"password: {secret}"),
        {("password", 1): Said(f"token={secret}")},
    ]
    return [{"msg": "planted", "extra": {"fact": extra}} for extra in extras] + [
        {"msg": f"api_key={secret}"},
        {"msg": "%s", "args": (f"authorization: {secret}",)},
        {"msg": "%(password)s api_key=%(password)s", "args": ({"password": f"token={secret}"},)},
        {"msg": "%d", "args": (f"token={secret}",)},
        {"msg": "planted", "extra": {"api_key": secret}},
        {"msg": "planted", "extra": {"fact": Mute()}},
        {"msg": f"duplicate\nDETAIL:  Key (name)=({secret}) already exists.\n"},
        {"msg": "%r", "args": (ValueError(f"null\nDETAIL:  Failing row contains (1, ({secret}).\nx), null)."),)},
    ]


def _fail(secret: str) -> None:
    raise RuntimeError(f"token={secret}") from ValueError(f"password={secret!r}")


@pytest.mark.parametrize("secret", CANARIES)
def test_no_secret_reaches_a_line(secret: str, capfd: pytest.CaptureFixture[str]) -> None:
    logger, written = logger_of("django.request")
    count = 0
    for record in planted(secret):
        logger.warning(record["msg"], *record.get("args", ()), extra=record.get("extra"))
        count += 1
        try:
            _fail(secret)
        except RuntimeError:
            logger.exception("failed")
            count += 1
    text = written.getvalue() + "".join(capfd.readouterr())
    assert secret not in text
    assert KEY not in text
    found = [json.loads(line) for line in written.getvalue().splitlines()]
    assert len(found) == count, "every record is one JSON object"
    assert REDACTED in text


def test_the_server_s_own_loggers_write_through_our_handler() -> None:
    """uvicorn configures its loggers before the application is loaded; Celery's go to the root."""
    config = logging_config("INFO")
    assert config["handlers"]["stderr"]["class"] == "codexflow.lib.log.Handler"
    assert config["loggers"]["uvicorn"] == {"handlers": ["stderr"], "level": "INFO", "propagate": False}
    for name, logger in config["loggers"].items():
        assert logger.get("handlers", []) in ([], ["stderr"]), name


@pytest.mark.parametrize(
    "text",
    [
        "upstream.attempt_failed", "prompt_tokens: 12, completion_tokens=7", "/v1/models?limit=100%25",
        "key cfx_Ab3dEf7h",
        "the token limit of a minute", "C:\\u0041 and %41", "https://example.org/a:b@c",
    ],
)  # fmt: skip
def test_ordinary_text_stays(text: str) -> None:
    assert redact_log(text) == text


@pytest.mark.parametrize(
    ("path", "route"), [("/invitations/hunter2-canary/", "invitations/<str:token>/"), ("/hunter2-canary", "(no route)")]
)
def test_django_names_the_route_and_not_the_address(path: str, route: str) -> None:
    """A path may be a link with a secret, and so may a referrer."""
    logger, written = logger_of("django.request")
    request = RequestFactory().get(path, {"q": "hunter2-canary"})
    if route.startswith("invitations"):
        request.resolver_match = resolve(path)
    logger.warning("%s: %s", "Not Found", path, extra={"status_code": 404, "request": request})
    reason = "Referer checking failed - https://example.org/hunter2-canary does not match any trusted origins."
    logger.warning("Forbidden (%s): %s", reason, path, extra={"status_code": 403, "request": request})
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["Not Found", "Forbidden (Referer checking failed"]
    assert {line["request"] for line in lines} == {f"GET {route}"}
    assert "hunter2-canary" not in written.getvalue()


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_key_is_found_in_any_surroundings(before: str, after: str) -> None:
    assert KEY not in redact_log(before + KEY + after)
