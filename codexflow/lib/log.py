"""Structured JSON logs: one object a line, with a request id where there is one, and never a secret.

Modules use the standard `logging.getLogger(__name__)` and name events:
`logger.warning("upstream.attempt_failed", extra={...})`.
"""

import re
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# API keys, provider keys, bearer tokens, webhook secrets, passwords inside URLs.
_SECRET = re.compile(
    r"cfx_[0-9A-Za-z]{8}_[0-9A-Za-z]{8,}|\bsk-[0-9A-Za-z_-]{8,}|whsec_[0-9A-Za-z]+|(?i:bearer)\s+[^\s\"']+|(?<=://)[^\s/@:\"']*:[^\s/@\"']+(?=@)"
)
REDACTED = "[redacted]"


def redact(text: str) -> str:
    """Replace everything in `text` that looks like a credential."""
    return _SECRET.sub(REDACTED, text)


def _redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: redact(value) if isinstance(value, str) else value for key, value in event.items()}


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def logging_config(level: str) -> dict[str, Any]:
    """Value of Django's LOGGING: all records to standard error as JSON."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _SHARED,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    _redact_event,
                    structlog.processors.JSONRenderer(default=str),
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django.server": {"handlers": ["stderr"], "level": level, "propagate": False},
            # A line per request would cost more than the request; usage has its own log.
            "uvicorn.access": {"handlers": [], "propagate": False, "level": "ERROR"},
            "httpx": {"level": "WARNING"},
            # Scheduled tasks start every second.
            "celery.beat": {"level": "WARNING"},
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
        },
    }
