"""Alarms about what only the operator can mend: a model that is missing upstream, or a refused key or account."""

import logging

from routing.errors import Cause

logger = logging.getLogger(__name__)

PAUSE_S = 60.0
_EVENTS: dict[Cause, str] = {
    "model_missing": "upstream.model_missing",
    "account_refused": "upstream.account_refused",
}


class Alarms:
    """Logs each cause of a model at most once a minute, however many calls meet it. One instance per process."""

    def __init__(self) -> None:
        self._raised_s: dict[tuple[Cause, str], float] = {}

    def report(self, cause: Cause, model: str, *, status: int, now_s: float) -> None:
        """Log the cause as an error. `now_s` never goes back."""
        last_s = self._raised_s.get((cause, model))
        if last_s is None or now_s - last_s >= PAUSE_S:
            self._raised_s[cause, model] = now_s
            # Not the provider's words: they may quote the caller.
            logger.error(_EVENTS[cause], extra={"model": model, "status": status})
