"""Tax that is included in the amounts of an invoice's lines. Pure. Amounts are integer cents of the invoice's currency.

The tax of the whole invoice is rounded once, half a cent up; its lines get shares of that by largest remainder, so that
they add up to it and none is more than a cent from its own exact tax.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_BP = 10_000
NANOS_PER_CENT = 10_000_000


@dataclass(frozen=True, slots=True)
class Taxed:
    """An amount with the tax in it."""

    total_cents: int
    tax_cents: int

    @property
    def net_cents(self) -> int:
        return self.total_cents - self.tax_cents


def tax_in(total_cents: int, rate_bp: int) -> int:
    """Return the tax contained in an amount, at a rate in basis points of the net amount. Half a cent is rounded up."""
    numerator, denominator = total_cents * rate_bp, _BP + rate_bp
    return (2 * numerator + denominator) // (2 * denominator)


def tax_of_lines(totals_cents: Sequence[int], rate_bp: int) -> list[Taxed]:
    """Return the lines with their tax, in the same order. The sum of their taxes is the tax of the sum.

    Of equal remainders the larger amount gets the cent first, so that the order of the lines does not matter. Raises
    ValueError for a negative amount or rate.
    """
    if rate_bp < 0 or min(totals_cents, default=0) < 0:
        raise ValueError("amounts and rates of an invoice are not negative")
    exact = [divmod(each * rate_bp, _BP + rate_bp) for each in totals_cents]
    left = tax_in(sum(totals_cents), rate_bp) - sum([cents for cents, _ in exact])
    by_remainder = sorted(range(len(exact)), key=lambda at: (-exact[at][1], -totals_cents[at]))
    rounded_up = set(by_remainder[:left])
    return [Taxed(total, exact[at][0] + (at in rounded_up)) for at, total in enumerate(totals_cents)]


def tax_of_part(paper: Taxed, credited: Taxed, part_cents: int) -> Taxed:
    """Return a part of an invoice's total with its share of the tax, after other parts of it were credited.

    Parts that add up to the total have taxes that add up to its tax, however it is cut. Raises ValueError for a part
    that is not above zero or more than what is left.
    """
    until_cents = credited.total_cents + part_cents
    if part_cents <= 0 or until_cents > paper.total_cents:
        raise ValueError(f"{part_cents} cents are no part of the rest of {paper.total_cents} cents")
    share = (2 * paper.tax_cents * until_cents + paper.total_cents) // (2 * paper.total_cents)
    return Taxed(part_cents, share - credited.tax_cents)


def rounded_cents(nanos: int) -> int:
    """Return an exact amount of nanos in cents, half a cent away from zero: the one rounding from nanos to cents."""
    cents = (2 * abs(nanos) + NANOS_PER_CENT) // (2 * NANOS_PER_CENT)
    return cents if nanos >= 0 else -cents
