"""Structured JSON logs: one object a line, with a request id where there is one, and never a secret.

Modules use the standard `logging.getLogger(__name__)` and name events:
`logger.warning("upstream.attempt_failed", extra={...})`.

Secrets are looked for in every text of a line, after objects, exceptions and nested values have become text: what is
redacted earlier misses what an object says of itself.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger
from typing_extensions import override

# API keys, provider keys, bearer tokens and other credentials of a header, webhook secrets, passwords inside URLs.
_SECRET = re.compile(
    r"cfx_[0-9A-Za-z]{8}_[0-9A-Za-z]{8,}|\bsk-[0-9A-Za-z_-]{8,}|whsec_[0-9A-Za-z]+|(?i:bearer)\s+[^\s\"']+"
    r"|(?i:\bbasic)\s+[0-9A-Za-z+/=]{8,}|(?<=://)[^\s/@:\"']*:[^\s/@\"']+(?=@)"
)
REDACTED = "[redacted]"
# A name whose value is a credential, whatever it looks like.
_NAME = (
    r"(?:[\w.-]*[._-])?(?:api[_-]?key|access[_-]?key|master[_-]?key|private[_-]?key|token|secret|password|passwd"
    r"|passphrase|authorization|set-cookie|cookie|sessionid|csrftoken|credentials?|salt)"
)
_IS_SECRET = re.compile(_NAME, re.IGNORECASE)
# The same inside a text: name=value, name: value, and the pairs of a mapping's or a header's repr.
_NAMED = re.compile(
    rf"""(?P<name>\b{_NAME}(?:\s*[=:]\s*|\\*["']\s*[:=,]\s*)|[?&](?:key|code|sig|signature|state)=)"""
    r"""(?P<value>b?(?P<quote>\\*["']).*?(?P=quote)|(?:(?:basic|bearer|digest|token)\s+)?[^\s,;&"'<>()\[\]{}]+)""",
    re.IGNORECASE | re.DOTALL,
)
# PostgreSQL quotes a row, or the columns of a key, under an error: whatever somebody has entered.
_ROW = re.compile(
    r"""(?P<about>DETAIL:\s+(?:Failing row contains|Key) )\(.*?\)"""
    r"""(?=\.\s*(?:\n|\Z|\\n|["'])|\s(?:already\sexists|is\snot\spresent|is\sstill\sreferenced|conflicts)\b)""",
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")
_QUOTES_REQUEST = re.compile(": | - ")
MAX_DEPTH = 20


def redact(text: str) -> str:
    """Replace everything in `text` that looks like a credential."""
    return _SECRET.sub(REDACTED, text)


def redact_log(text: str) -> str:
    """Replace credentials as `redact` does, those that only their name tells, escaped ones, and rows of PostgreSQL."""
    clean = _NAMED.sub(rf"\g<name>{REDACTED}", redact(_ROW.sub(rf"\g<about>{REDACTED}", text)))
    plain = clean
    for _ in range(3):  # an escaped text may have been escaped again
        unescaped = _ESCAPED.sub(_unescaped, unquote(plain) if "%" in plain else plain)
        if unescaped == plain:
            break
        plain = unescaped
    if plain is clean:
        return clean
    # Escapes stay as they are in a text that hides nothing.
    found = _NAMED.sub(rf"\g<name>{REDACTED}", redact(plain))
    return clean if found == plain else found


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1] or found[2], 16))


def redacted(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON carries it, without credentials in any of its texts, names included."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact_log(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return redact_log(bytes(value).decode(errors="backslashreplace"))
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {_text(name): _value(name, each, depth) for name, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            items = list(value)
            if len(items) == 2 and isinstance(items[0], str | bytes):  # a header or another pair
                return [redacted(items[0], depth + 1), _value(items[0], items[1], depth)]
            return [redacted(each, depth + 1) for each in items]
    return redact_log(_text(value))


def _value(name: Any, value: Any, depth: int) -> Any:
    is_hidden = value is not None and not isinstance(value, bool) and _IS_SECRET.fullmatch(_text(name))
    return REDACTED if is_hidden else redacted(value, depth + 1)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    try:
        return redact_log(str(value))
    except Exception:  # noqa: BLE001 - an object that cannot say what it is
        return f"<{type(value).__name__}>"


def _without_address(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Name the route of a request that Django logs, instead of its path and query: they may have a link's secret.

    Django's messages have the path behind a colon, and the origin or referrer behind a dash.
    """
    request: Any = event.get("request")
    if hasattr(request, "resolver_match"):
        match = request.resolver_match
        event["request"] = f"{request.method} {match.route if match else '(no route)'}"
        event["event"] = _QUOTES_REQUEST.split(str(event["event"]), maxsplit=1)[0]
    return event


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return json.dumps(redacted(event))


class Handler(logging.StreamHandler[Any]):
    """Writes to standard error. A record that cannot be formatted is named, but not shown: it was not redacted."""

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        kind = sys.exc_info()[0]
        facts = {"event": "log.failed", "logger": record.name, "exception": kind.__name__ if kind else ""}
        try:
            self.stream.write(json.dumps({**facts, "where": f"{record.pathname}:{record.lineno}"}) + "\n")
        except (OSError, ValueError):
            return  # there is nowhere left to say it


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def logging_config(level: str, sentry_dsn: str = "") -> dict[str, Any]:
    """Value of Django's LOGGING: all records to standard error as JSON; unexpected exceptions to Sentry as well."""
    handlers: dict[str, dict[str, Any]] = {"stderr": {"class": "codexflow.lib.log.Handler", "formatter": "json"}}
    if sentry_dsn:
        handlers["sentry"] = {"class": "codexflow.lib.error_reports.Handler", "level": "ERROR", "dsn": sentry_dsn}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _SHARED,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    _without_address,
                    structlog.processors.format_exc_info,
                    _render,
                ],
            }
        },
        "handlers": handlers,
        "root": {"handlers": [*handlers], "level": level},
        "loggers": {
            "django.server": {"handlers": [*handlers], "level": level, "propagate": False},
            # Django's own handlers write plain text.
            "django": {"handlers": [], "level": level, "propagate": True},
            # uvicorn gives these a handler of its own, before it loads the application.
            "uvicorn": {"handlers": [*handlers], "level": level, "propagate": False},
            "uvicorn.error": {"handlers": [], "level": level, "propagate": True},
            "uvicorn.asgi": {"handlers": [], "level": level, "propagate": True},
            # A line per request would cost more than the request; usage has its own log.
            "uvicorn.access": {"handlers": [], "propagate": False, "level": "ERROR"},
            "httpx": {"level": "WARNING"},
            # Scheduled tasks start every second.
            "celery.beat": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
        },
    }
