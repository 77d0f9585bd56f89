"""Wait that a provider asks for: `Retry-After` in seconds, as a fraction or a date, or `retry-after-ms`. Pure."""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from codexflow.lib.errors import MAX_RETRY_AFTER_S

# LiteLLM hands a provider's headers on under its own prefix.
_PREFIXES = (b"", b"llm_provider-")
_NUMBER = re.compile(rb"(\d+)(?:\.(\d*))?", re.ASCII)
_MAX_DIGITS = 9  # int() refuses thousands of digits
_LONGEST = 1_000_000_000
_MAX_DATE_BYTES = 64


def retry_after_s(headers: Mapping[bytes, bytes], now_s: float) -> int | None:
    """Return the whole seconds from 1 to MAX_RETRY_AFTER_S that a response asks to wait; None if it asks for none.

    Names of `headers` are in lower case. What cannot be read counts as absent, what is longer as the maximum.
    """
    for prefix in _PREFIXES:
        ms = _thousandths(headers.get(prefix + b"retry-after-ms", b""), unit=1)
        if ms is None:
            after = headers.get(prefix + b"retry-after", b"")
            ms = _thousandths(after, unit=1000)
            if ms is None:
                ms = _ms_until(after, now_s)
        if ms is not None:
            return min(max(1, -(-ms // 1000)), MAX_RETRY_AFTER_S)
    return None


def _thousandths(text: bytes, *, unit: int) -> int | None:
    """Return a decimal number times `unit`, rounded up."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    whole, fraction = found[1].lstrip(b"0"), (found[2] or b"").ljust(3, b"0")
    if len(whole) > _MAX_DIGITS:
        return _LONGEST
    is_more = bool(fraction[3:].strip(b"0"))
    return int(whole or b"0") * unit + -(-int(fraction[:3]) * unit // 1000) + is_more


def _ms_until(text: bytes, now_s: float) -> int | None:
    """Return the milliseconds until a date; negative for one that has passed."""
    if not text or len(text) > _MAX_DATE_BYTES:
        return None
    try:
        date = parsedate_to_datetime(text.decode("ascii"))
        # Without a zone it is Greenwich, as of every date in HTTP.
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_s
    except (ValueError, TypeError, OverflowError, IndexError, UnicodeError):
        return None
    return int(seconds * 1000)
