"""Unexpected exceptions, reported to Sentry or what speaks its protocol. Imported only where SENTRY_DSN is set.

A report is what the log says of an exception: type, text and lines of code, redacted like the log. It has
no local variables, no request, no header, no user and no earlier log lines: none of Sentry's integrations is on.
"""

import logging
from typing import Any

import sentry_sdk
import structlog
from sentry_sdk.types import Event, Hint
from sentry_sdk.utils import event_from_exception
from typing_extensions import override

from codexflow.lib.errors import AppError
from codexflow.lib.log import redacted

CLOSE_TIMEOUT_S = 2.0


class Handler(logging.Handler):
    """Reports the exceptions that are logged as errors, apart from those that are answers to a caller."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._client = sentry_sdk.Client(
            dsn=dsn,
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            max_request_body_size="never",
            send_default_pii=False,
            send_client_reports=False,
            before_send=_clean,
        )

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if not record.exc_info or isinstance(record.exc_info[1], AppError | None):
            return
        try:
            event, hint = event_from_exception(record.exc_info, client_options=self._client.options)
            # The message's form: its arguments may be a caller's.
            event["logger"], event["transaction"] = record.name, str(record.msg)
            request_id = getattr(record, "request_id", structlog.contextvars.get_contextvars().get("request_id"))
            if request_id is not None:
                event["tags"] = {"request_id": str(request_id)}
            self._client.capture_event(event, hint)
        except Exception:  # noqa: BLE001 - a report that fails must not fail what is reported
            self.handleError(record)

    @override
    def close(self) -> None:
        self._client.close(timeout=CLOSE_TIMEOUT_S)
        super().close()


def _clean(event: Event, _hint: Hint) -> Event:
    clean: Any = redacted(event)
    return clean  # type: ignore[no-any-return] # the same event with other texts
