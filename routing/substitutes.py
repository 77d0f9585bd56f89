"""Models that answered in place of the ones that were asked: an alarm for the operator, once an hour each."""

import logging

from codexflow.lib import clock

logger = logging.getLogger(__name__)

REPEAT_S = 3600.0
# A provider that names its models at random must not fill memory.
MAX_PAIRS = 1_000


class Substitutes:
    """Pairs of asked and served models that were seen of late. One instance per process."""

    def __init__(self) -> None:
        self._alarmed_s: dict[tuple[str, str], float] = {}

    def note(self, asked: str, served: str, *, is_priced: bool) -> None:
        """Raise the alarm, unless this pair had one within the hour."""
        now_s, pair = clock.monotonic_s(), (asked, served)
        if now_s - self._alarmed_s.get(pair, -REPEAT_S) < REPEAT_S:
            return
        if len(self._alarmed_s) >= MAX_PAIRS:
            self._alarmed_s.clear()
        self._alarmed_s[pair] = now_s
        logger.error("upstream.model_substituted", extra={"asked": asked, "served": served, "is_priced": is_priced})

    def recent(self) -> dict[str, str]:
        """Return the served model by the asked one, of the last hour."""
        since_s = clock.monotonic_s() - REPEAT_S
        return {asked: served for (asked, served), at_s in self._alarmed_s.items() if at_s >= since_s}
