"""Money is integer nano-USD: 1 USD = 1,000,000,000 nanos. No float ever holds an amount."""

from decimal import ROUND_HALF_EVEN, Decimal

NANOS_PER_USD = 1_000_000_000
# Most digits of an amount in nanos. Converting "1e999990" to an int would block the process for half a minute.
_MAX_DIGITS = 30


class InvalidAmount(ValueError):
    """The text is not an amount of USD with at most nine decimals."""


def parse_usd(text: str | int | Decimal) -> int:
    """Parse an amount in USD from a form or a YAML file into nanos. Raises InvalidAmount; never rounds."""
    try:
        nanos = Decimal(text) * NANOS_PER_USD
    except (ArithmeticError, TypeError) as exc:
        raise InvalidAmount(f"{text!r} is not an amount in USD") from exc
    if not nanos.is_finite() or nanos.adjusted() > _MAX_DIGITS or nanos != nanos.to_integral_value():
        raise InvalidAmount(f"{text!r} is not an amount in USD with at most nine decimals")
    return int(nanos)


def round_div(numerator: int, denominator: int) -> int:
    """Divide and round to the nearest integer, half to even. `denominator` must be positive."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2):
        return quotient + 1
    return quotient


def format_usd(nanos: int, *, decimals: int = 6) -> str:
    """Format nanos as USD without a currency sign: 1_500_000 -> '0.001500'."""
    unit = Decimal(1).scaleb(-decimals)
    # Not str(): it writes zero as 0E-9.
    return format((Decimal(nanos) / NANOS_PER_USD).quantize(unit, rounding=ROUND_HALF_EVEN), "f")
